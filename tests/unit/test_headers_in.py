"""What is read from, taken out of and added to the header block of a submission."""

import pytest

from postrail.core import headers_in
from postrail.core.headers_in import Trace, author_domains, protocol_name
from postrail.core.refusals import Refused

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        (b"A <a@b.com>", ("b.com",)),
        (b'"A, B" <a@b.com>', ("b.com",)),
        (b"a@B.com", ("b.com",)),
        (b"a@b.com, Foo <x@y.org>", ("b.com", "y.org")),
        (b"=?utf-8?q?x?= <a@b.com>", ("b.com",)),
        (b"a@b.com (other@z.com)", ("b.com",)),
        (b'"q@z.com" <a@b.com>', ("b.com",)),
        ("é <ä@exämple.com>".encode(), ("xn--exmple-cua.com",)),
        (b"Group: a@b.com, c@d.com;", ("b.com", "d.com")),
    ],
)
def test_authors(value: bytes, domains: tuple[str, ...]) -> None:
    assert author_domains(value) == domains


@pytest.mark.parametrize(
    "value",
    [b"", b"foo", b"<a@b.com", b"a@b.com <x@y.com>", b"a <x@y.com> z", b"Nobody:;", b"@x.com:a@b.com", b"a@-b.com",
     b"\xff <a@b.com", b"x" * 9000],
)  # fmt: skip
def test_authors_that_cannot_be_read_in_one_way(value: bytes) -> None:
    with pytest.raises(Refused) as refused:
        author_domains(value)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (554, "5.6.0")


def test_fields_are_removed_and_added_and_others_keep_every_byte() -> None:
    kept = b"FROM : a@example.com\r\nSubject: two\r\n\tlines\r\nTo:b@example.org\r\n"
    block = b"Return-Path: <x@y>\r\nBcc: c@example.org,\r\n d@example.org\r\n" + kept + b"Resent-Bcc: e@f\r\n"
    trace = Trace.of("client", "2001:db8::1", "mail.example.com", "ESMTPSA", "TLSv1.3 TLS_AES_128_GCM_SHA256")
    header = headers_in.read(block)
    built, message_id = headers_in.build(
        header, trace.field("id1", "b@example.org", NOW), "id1", "mail.example.com", NOW
    )
    assert built == (
        b"Received: from client ([IPv6:2001:db8::1])\r\n\tby mail.example.com with ESMTPSA (TLSv1.3 TLS_AES_128_GCM_SHA256)"
        b"\r\n\tid id1\r\n\tfor <b@example.org>;\r\n\tTue, 14 Nov 2023 22:13:20 -0000\r\n"
        + kept
        + b"Date: Tue, 14 Nov 2023 22:13:20 -0000\r\nMessage-ID: <id1@mail.example.com>\r\n"
    )
    assert message_id == "id1@mail.example.com"


def test_what_is_there_is_not_added() -> None:
    block = b"From: a@example.com\r\nDate: x\r\nMessage-Id:  <abc@def> \r\n"
    header = headers_in.read(block)
    assert headers_in.build(header, b"", "id1", "host", NOW) == (block, "abc@def")


def test_control_fields() -> None:
    header = headers_in.read(
        b"From: a@example.com\r\nX-Postrail-Stream: Marketing\r\nX-Postrail-Tag: t\r\nX-Postrail-Metadata-B: 2\r\n"
        b"X-Postrail-Metadata-A: 1\r\nX-Postrail-Other: kept\r\n"
    )
    assert (header.stream, header.tag, header.metadata) == ("marketing", "t", (("a", "1"), ("b", "2")))
    assert [field.name for field in header.kept] == [b"from", b"x-postrail-other"]


@pytest.mark.parametrize(
    ("extended", "smtputf8", "tls", "authenticated", "name"),
    [
        (False, False, True, False, "SMTP"),
        (True, False, False, False, "ESMTP"),
        (True, False, True, True, "ESMTPSA"),
        (True, True, False, False, "UTF8SMTP"),
        (True, True, True, True, "UTF8SMTPSA"),
    ],
)
def test_protocol_names(extended: bool, smtputf8: bool, tls: bool, authenticated: bool, name: str) -> None:
    assert protocol_name(extended=extended, smtputf8=smtputf8, tls=tls, authenticated=authenticated) == name
