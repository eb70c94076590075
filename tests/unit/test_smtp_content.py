"""Content leaves dot-stuffed, ended once, and never with a bare CR, bare LF or NUL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.smtp_commands import LocalProtocolError
from postrail.core.smtp_content import DotStuffer
from postrail.core.smtp_content import stuffed as whole


def stuffed(*chunks: bytes) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*(stuffer.feed(chunk) for chunk in chunks), stuffer.finish()])


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n..\r\nQUIT\r\n.\r\n"),
        (b"a\r\n..b\r\n", b"a\r\n...b\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
    ],
)
def test_content_is_stuffed_and_ended(content: bytes, sent: bytes) -> None:
    assert stuffed(content) == sent


def unstuffed(sent: bytes) -> bytes:
    """What a server makes of it."""
    lines = sent.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2], "the content ends too early"
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a", b"a."])), st.lists(st.integers(1, 6)))
def test_a_server_gets_back_what_was_sent_however_it_was_cut(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    chunks, start = [], 0
    for cut in cuts:
        chunks.append(content[start : start + cut])
        start += cut
    chunks.append(content[start:])
    assert unstuffed(stuffed(*chunks)) == content


@pytest.mark.parametrize(
    "chunks",
    [
        (b"a\nb\r\n",),
        (b"a\rb\r\n",),
        (b"a\r\n.\n",),
        (b"a\n.\r\n",),
        (b"a\r.\r\n",),
        (b"a\r\r\n",),
        (b"a\n\r\n",),
        (b"a\r", b"b\r\n"),
        (b"a\r", b"\r\n"),
        (b"a", b"\nb"),
        (b"a\r\n", b"\n"),
        (b"a\r",),
        (b"a\x00b\r\n",),
        (b"\n",),
        (b"\r",),
    ],
)
def test_bare_cr_lf_and_nul_never_leave(chunks: tuple[bytes, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        stuffed(*chunks)


@given(st.lists(st.text("\r\n.a", max_size=6).map(str.encode), max_size=6))
def test_content_leaves_exactly_when_each_cr_and_lf_is_half_of_a_pair(chunks: list[bytes]) -> None:
    rest = b"".join(chunks).replace(b"\r\n", b"")
    if b"\r" in rest or b"\n" in rest:
        with pytest.raises(LocalProtocolError):
            stuffed(*chunks)
    else:
        assert stuffed(*chunks) == whole(*chunks)


def test_a_line_end_may_be_cut_in_two() -> None:
    assert stuffed(b"a\r", b"\n", b".b\r", b"\n") == b"a\r\n..b\r\n.\r\n"
