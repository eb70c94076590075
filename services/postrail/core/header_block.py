"""The header block of a message: splitting it off, looking at its fields, taking fields out.

A header block is bytes: zero or more fields, each ending in CRLF, folded lines included; the empty line that ends it is
not part of it. Nothing here changes a byte of a field that it keeps (RFC 5322 §2.2).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_CONTINUATION = (b" ", b"\t")
_NAME = re.compile(rb"[!-9;-~]+(?=[ \t]*:)")
# A whole field and its name. Possessive and tied to the start of a line, so that no input makes it slow.
_FIELD = re.compile(rb"(?m)^(([!-9;-~]++)[ \t]*+:[^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+\r\n)")


class MalformedHeader(ValueError):
    """A line in the header block is neither a field nor the continuation of one."""


class Field(NamedTuple):
    """One field. `name` is lower case; `raw` is the whole field as it stands, CRLF included."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded, without surrounding white space."""
        return self.raw.split(b":", 1)[1].replace(b"\r\n", b"").strip()


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header block and body of a message. Without an empty line all of it is header block, and the body is empty."""
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n")
    if end < 0:
        return (content if content.endswith(b"\r\n") or not content else content + b"\r\n"), b""
    return content[: end + 2], content[end + 4 :]


def fields(block: bytes) -> list[Field]:
    """The fields in order.

    Raises:
        MalformedHeader: a line is no field; the message names it (shortened).
    """
    whole = _FIELD.findall(block)
    if sum([len(raw) for raw, _ in whole]) == len(block):
        return [Field(name.lower(), raw) for raw, name in whole]
    return _line_by_line(block)


def _line_by_line(block: bytes) -> list[Field]:
    """`fields` of a block with something unusual in it: a malformed line, a bare CR or LF, no CRLF at its end."""
    found: list[Field] = []
    start, end_of_block = 0, len(block)
    find, match_name = block.find, _NAME.match
    while start < end_of_block:
        end = find(b"\r\n", start) + 2
        while end > 1 and block.startswith(_CONTINUATION, end):
            end = find(b"\r\n", end) + 2
        if end < 2:
            end = end_of_block
        match = match_name(block, start, end)
        raw = block[start:end]
        if match is None:
            raise MalformedHeader(f"no header field: {raw[:60]!r}")
        found.append(Field(match[0].lower(), raw))
        start = end
    return found


def without(found: list[Field], names: Collection[bytes]) -> list[Field]:
    """The fields whose (lower-case) name is not among `names`."""
    return [field for field in found if field.name not in names]


def join(found: list[Field]) -> bytes:
    """The header block of these fields."""
    return b"".join([field.raw for field in found])
