"""The fields of a header block, usual and unusual ones."""

from __future__ import annotations

import random

import pytest

from postrail.core.header_block import Field, MalformedHeader, fields, join

PIECES = (
    b"A:",
    b"b",
    b":",
    b" ",
    b"\t",
    b"\r\n",
    b"\r",
    b"\n",
    b"X-y: z",
    b"\r\n ",
    b"\r\n\t",
    b"\xff",
    b"\0",
    b"C: d\r\n",
)


def line_by_line(block: bytes) -> list[Field] | None:
    """RFC 5322 §2.2.3 word for word: unfold first, then every line is a name, a colon and a value. None where one is not."""
    found: list[Field] = []
    for line in block.split(b"\r\n"):
        if found and line.startswith((b" ", b"\t")):
            found[-1] = Field(found[-1].name, found[-1].raw + b"\r\n" + line)
        else:
            name = line.partition(b":")[0].rstrip(b" \t")
            found.append(Field(name.lower(), line))
    if block.endswith(b"\r\n"):
        found.pop()
    whole = [Field(name, raw + b"\r\n") for name, raw in found[:-1]]
    whole += [Field(name, raw + (b"\r\n" if block.endswith(b"\r\n") else b"")) for name, raw in found[-1:]]
    for name, raw in whole:
        if b":" not in raw.partition(b"\r\n")[0] or not name or not all(33 <= byte <= 126 for byte in name):
            return None
    return whole


def test_fields_keep_every_byte_and_know_their_names() -> None:
    block = b"Subject : one\r\n two\r\nFROM: a@b.example\r\nX-Empty:\r\n\t\r\nLast:\xff"
    found = fields(block + b"\r\n")
    assert [field.name for field in found] == [b"subject", b"from", b"x-empty", b"last"]
    assert join(found) == block + b"\r\n"
    assert [field.name for field in fields(block)] == [field.name for field in found]
    assert join(fields(block)) == block
    assert fields(b"") == []


@pytest.mark.parametrize(
    "block", [b"no colon\r\n", b" folded first: x\r\n", b"A: b\r\n: no name\r\n", b"Sub ject: x\r\n"]
)
def test_what_is_no_field_is_refused(block: bytes) -> None:
    with pytest.raises(MalformedHeader, match="no header field"):
        fields(block)


def test_any_bytes_are_read_as_the_standard_says() -> None:
    pick = random.Random(5322)
    read = 0
    for _ in range(20_000):
        block = b"".join(pick.choices(PIECES, k=pick.randrange(1, 10)))
        try:
            found: list[Field] | None = fields(block)
        except MalformedHeader:
            found = None
        assert found == line_by_line(block), block
        read += found is not None
    assert read > 1000


@pytest.mark.parametrize(
    ("block", "count"),
    [
        (b"a" * 500_000, None),
        (b"a:" + b"\r\n " * 150_000, 1),
        (b"a " * 250_000, None),
        (b"a:b\r\n" * 50_000 + b"x:", 50_001),
    ],
)
def test_a_large_block_is_no_trap(block: bytes, count: int | None) -> None:
    """A pattern that goes back and forth would take hours; the suite's time-out would end it."""
    if count is None:
        with pytest.raises(MalformedHeader):
            fields(block)
    else:
        assert len(fields(block)) == count
