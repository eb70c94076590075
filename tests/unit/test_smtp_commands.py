"""What MAIL and RCPT say to which server, and what a server cannot be given."""

from dataclasses import replace

import pytest

from postrail.core.records import Notify, Recipient
from postrail.core.smtp_commands import (
    NO_CAPABILITIES,
    Capabilities,
    LocalProtocolError,
    Transaction,
    mail_line,
    obstacle,
    parse_capabilities,
    rcpt_line,
    xtext,
)

ALL = Capabilities(
    pipelining=True, starttls=True, eight_bit=True, smtputf8=True, dsn=True, size=True, size_bytes=10_000
)
PLAIN = Transaction("a@example.org", (Recipient("b@example.com"),), 500)
RICH = PLAIN._replace(eight_bit=True, smtputf8=True, ret="HDRS", envid="id+1 x")


def test_capabilities_are_read() -> None:
    lines = ["mx.example.com greets you", "PIPELINING", "size 1000", "8bitmime", "SMTPUTF8", "DSN", "STARTTLS", "X"]
    found = parse_capabilities(lines)
    assert found == replace(ALL, size_bytes=1000)


@pytest.mark.parametrize("line", ["SIZE", "SIZE 0", "SIZE x", "SIZE -1", "SIZE " + "9" * 40])
def test_size_without_a_sane_limit_is_no_limit(line: str) -> None:
    found = parse_capabilities(["x", line])
    assert found.size
    assert found.size_bytes is None


def test_the_greeting_is_no_capability() -> None:
    assert parse_capabilities(["STARTTLS"]) == NO_CAPABILITIES


def test_a_simple_server_gets_simple_commands() -> None:
    recipient = Recipient("b@example.com", Notify.FAILURE, "rfc822;b@example.com")
    assert mail_line(RICH, NO_CAPABILITIES) == b"MAIL FROM:<a@example.org>\r\n"
    assert rcpt_line(recipient, NO_CAPABILITIES) == b"RCPT TO:<b@example.com>\r\n"


def test_parameters_go_to_servers_that_know_them() -> None:
    expected = b"MAIL FROM:<a@example.org> SIZE=500 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1+20x\r\n"
    assert mail_line(RICH, ALL) == expected
    recipient = Recipient("b@example.com", Notify.SUCCESS | Notify.DELAY, "rfc822;b+c=d@example.com")
    expected = b"RCPT TO:<b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc+3Dd@example.com\r\n"
    assert rcpt_line(recipient, ALL) == expected
    assert b"NOTIFY=NEVER\r\n" in rcpt_line(Recipient("b@example.com", Notify.NEVER), ALL)


def test_the_null_reverse_path() -> None:
    assert mail_line(PLAIN._replace(reverse_path=""), ALL).startswith(b"MAIL FROM:<> ")


def test_an_international_original_recipient() -> None:
    line = rcpt_line(Recipient("b@example.com", orcpt="rfc822;grüße@example.com"), ALL)
    assert line == b"RCPT TO:<b@example.com> ORCPT=utf-8;gr\\x{FC}\\x{DF}e@example.com\r\n"


@pytest.mark.parametrize("bad", ["a@b\r\nRCPT TO:<x@y>", "a\n@b", "a\r@b", "a\x00@b", "a>@b", '"a\r\n"@b', "<a@b"])
def test_addresses_that_would_smuggle_are_refused(bad: str) -> None:
    with pytest.raises(LocalProtocolError):
        mail_line(PLAIN._replace(reverse_path=bad), ALL)
    with pytest.raises(LocalProtocolError):
        rcpt_line(Recipient(bad), ALL)


def test_a_quoted_local_part_may_hold_brackets() -> None:
    assert rcpt_line(Recipient('"a>b"@example.com'), NO_CAPABILITIES) == b'RCPT TO:<"a>b"@example.com>\r\n'


def test_parameters_cannot_smuggle() -> None:
    assert xtext("a\r\nb c") == "a+0D+0Ab+20c"
    line = mail_line(PLAIN._replace(envid="x\r\nDATA"), ALL)
    assert line.count(b"\r\n") == 1


@pytest.mark.parametrize(
    ("transaction", "peer", "status"),
    [
        (PLAIN, NO_CAPABILITIES, None),
        (RICH, ALL, None),
        (PLAIN._replace(eight_bit=True), NO_CAPABILITIES, "5.6.3"),
        (PLAIN._replace(smtputf8=True), replace(ALL, smtputf8=False), "5.6.7"),
        (PLAIN._replace(size_bytes=10_001), ALL, "5.3.4"),
        (PLAIN._replace(size_bytes=10_000), ALL, None),
        (PLAIN._replace(size_bytes=10_001), replace(ALL, size_bytes=None), None),
    ],
)
def test_what_stands_in_the_way(transaction: Transaction, peer: Capabilities, status: str | None) -> None:
    found = obstacle(transaction, peer)
    assert (found.reply.enhanced if found else None) == status
    assert found is None or found.internal
