"""Replies are cut from whatever pieces come, and garbage is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.replies import Reply
from postrail.core.reply_parser import MAX_LINE_BYTES, MAX_LINES, ParsedReply, RemoteProtocolError, ReplyParser


def parse(data: bytes) -> list[ParsedReply]:
    parser = ReplyParser()
    parser.receive(data)
    found = []
    while (parsed := parser.next_reply()) is not None:
        found.append(parsed)
    return found


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"250 Ok\r\n", Reply(250, "", "Ok")),
        (b"250\r\n", Reply(250, "", "")),
        (b"250 2.1.5 Ok\r\n", Reply(250, "2.1.5", "Ok")),
        (b"250 Ok\n", Reply(250, "", "Ok")),
        (b"550-5.1.1 No such user.\r\n550 5.1.1 Ask them.\r\n", Reply(550, "5.1.1", "No such user. Ask them.")),
        (b"550-5.7.1 One\r\n550 two 5.1.1\r\n", Reply(550, "5.7.1", "One two 5.1.1")),
        (b"550 5.1.1\r\n", Reply(550, "5.1.1", "")),
        (b"550 4.2.2 contradicts\r\n", Reply(550, "4.2.2", "contradicts")),
        (b"250 2.1.50000 no code\r\n", Reply(250, "", "2.1.50000 no code")),
        (b"451 a\x00b\x1b[31m\r\n", Reply(451, "", "a b [31m")),
        ("451 a\x9b2Jb\u2028c\u202ed\r\n".encode(), Reply(451, "", "a 2Jb c d")),
        ("250 grüße\r\n".encode(), Reply(250, "", "grüße")),
        (b"250 \xff\r\n", Reply(250, "", "�")),
    ],
)
def test_a_reply_is_read(data: bytes, reply: Reply) -> None:
    assert [parsed.reply() for parsed in parse(data)] == [reply]


@given(st.lists(st.integers(1, 30)))
def test_where_the_bytes_are_cut_makes_no_difference(cuts: list[int]) -> None:
    data = b"220 hello\r\n250-one\r\n250-PIPELINING\r\n250 SIZE 1\r\n421 4.3.2 bye\r\n"
    parser, found, start = ReplyParser(), [], 0
    for cut in [*cuts, len(data)]:
        parser.receive(data[start : start + cut])
        start += cut
        while (parsed := parser.next_reply()) is not None:
            found.append(parsed)
    assert found == parse(data)
    assert [parsed.code for parsed in found] == [220, 250, 421]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"25 short\r\n",
        b"150 class one\r\n",
        b"650 class six\r\n",
        b"250x\r\n",
        b"250-one\r\n550 two\r\n",
        b"250 " + b"x" * MAX_LINE_BYTES + b"\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
        b"\x16\x03\x01\x02\x00\n",
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(data)


def test_an_unfinished_line_waits() -> None:
    assert parse(b"250 no end") == []
    assert parse(b"250-more\r\n") == []


def test_what_was_received_can_be_discarded() -> None:
    parser = ReplyParser()
    parser.receive(b"250-half\r\n250 injected\r\n2")
    parser.discard()
    parser.receive(b"220 new\r\n")
    parsed = parser.next_reply()
    assert parsed is not None
    assert parsed.code == 220
