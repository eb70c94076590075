"""Where content ends, what is unstuffed and what is refused, however the network cuts it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.data_reader import ChunkReader, ContentProblem, DataReader

MAX_BYTES = 1 << 20
MAX_LINE_BYTES = 1000


def read(wire: bytes, cuts: list[int] | None = None, max_bytes: int = MAX_BYTES) -> tuple[bytes, DataReader]:
    reader = DataReader(max_bytes, MAX_LINE_BYTES)
    content = b""
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts or []), len(wire)]
    for start, end in pairwise(edges):
        if reader.rest is not None:
            reader.rest += wire[start:end]
        else:
            content += reader.feed(wire[start:end])
    return content, reader


def stuffed(content: bytes) -> bytes:
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b"...", b"a", b".a", b"a.", b"long line of text", b"\xc3\xa9"]), max_size=12
)
CUTS = st.lists(st.integers(0, 500), max_size=20)


@given(LINES, CUTS, st.sampled_from([b"", b"NOOP\r\n", b".\r\n", b"\r\n.\r\n"]))
def test_content_survives_stuffing_and_any_cut(lines: list[bytes], cuts: list[int], rest: bytes) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    found, reader = read(stuffed(content) + rest, cuts)
    assert (found, reader.rest, reader.problem) == (content, rest, None)
    assert reader.size_bytes == len(content)
    assert reader.eight_bit == (b"\xc3\xa9" in lines)


FRAGMENTS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x", b"\r\n.", b"\r\n.\r\n", b"\0"]), max_size=15)


@given(FRAGMENTS, CUTS)
def test_the_cut_never_matters(fragments: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(fragments) + b"\r\n.\r\n"
    whole, at_once = read(wire)
    pieces, in_pieces = read(wire, cuts)
    assert in_pieces.rest == at_once.rest
    assert (in_pieces.problem is None) == (at_once.problem is None)
    if at_once.problem is None:
        assert pieces == whole


@given(FRAGMENTS, CUTS)
def test_accepted_content_has_no_bare_cr_lf_or_nul_and_ends_at_the_first_true_end(
    fragments: list[bytes], cuts: list[int]
) -> None:
    wire = b"".join(fragments) + b"\r\n.\r\n"
    content, reader = read(wire, cuts)
    assert reader.rest is not None
    end = (b"\r\n" + wire).find(b"\r\n.\r\n")
    assert reader.rest == wire[end + 3 :]
    if reader.problem is None:
        bare = content.replace(b"\r\n", b"")
        assert b"\r" not in bare
        assert b"\n" not in bare
        assert b"\0" not in bare


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x"]), max_size=15).map(b"".join))
def test_exactly_the_content_without_bare_cr_and_lf_passes(content: bytes) -> None:
    reader = ChunkReader(MAX_BYTES, MAX_LINE_BYTES)
    reader.feed(content)
    reader.finish()
    bare = content.replace(b"\r\n", b"")
    assert (reader.problem is None) == (b"\r" not in bare and b"\n" not in bare)


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\r\n.\r\r\n"])
def test_a_false_end_neither_ends_nor_passes(end: bytes) -> None:
    wire = b"Subject: one\r\n\r\nbody" + end + b"MAIL FROM:<smuggled@example.com>\r\n.\r\nQUIT\r\n"
    content, reader = read(wire)
    assert reader.problem is ContentProblem.BARE_CR_OR_LF
    assert reader.rest == b"QUIT\r\n"
    assert b"smuggled" not in content


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (b"a\0b\r\n.\r\n", ContentProblem.NUL),
        (b"x" * 999 + b"\r\n.\r\n", ContentProblem.LINE_TOO_LONG),
        (b"x" * 998 + b"\r\n.\r\n", None),
        (b"short\r\n" * 200 + b".\r\n", None),
        (b"short\r\n" * 200 + b"x" * 2000 + b"\r\n.\r\n", ContentProblem.LINE_TOO_LONG),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_nul_and_long_lines_are_refused(wire: bytes, problem: ContentProblem | None, step: int) -> None:
    _, reader = read(wire, list(range(0, len(wire), step)))
    assert reader.problem is problem
    assert reader.rest == b""


def test_too_much_content_is_counted_but_not_kept() -> None:
    content, reader = read(b"x" * 98 + b"\r\n" + b"y" * 98 + b"\r\n.\r\n", max_bytes=150)
    assert reader.problem is ContentProblem.TOO_LARGE
    assert reader.size_bytes == 200
    assert content == b""


@given(LINES, CUTS)
def test_chunks_are_taken_as_they_are(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    reader = ChunkReader(MAX_BYTES, MAX_LINE_BYTES)
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    found = b"".join(reader.feed(content[start:end]) for start, end in pairwise(edges))
    assert found + reader.finish() == content
    assert reader.problem is None


@pytest.mark.parametrize(
    ("chunks", "content", "problem"),
    [
        ([b"no line end"], b"no line end\r\n", None),
        ([b"split\r", b"\nhere\r\n"], b"split\r\nhere\r\n", None),
        ([b""], b"", None),
        ([b"cr\r"], None, ContentProblem.BARE_CR_OR_LF),
        ([b"cr\r", b"x\r\n"], None, ContentProblem.BARE_CR_OR_LF),
        ([b"lf\n"], None, ContentProblem.BARE_CR_OR_LF),
        ([b"nul\0\r\n"], None, ContentProblem.NUL),
    ],
)
def test_chunks_end_their_last_line_and_refuse_bare_cr_and_lf(
    chunks: list[bytes], content: bytes | None, problem: ContentProblem | None
) -> None:
    reader = ChunkReader(MAX_BYTES, MAX_LINE_BYTES)
    found = b"".join(reader.feed(chunk) for chunk in chunks) + reader.finish()
    assert reader.problem is problem
    if content is not None:
        assert found == content
