"""Message content as it comes from the network: where it ends, and what of it is refused.

Owns the end of DATA (only CRLF.CRLF), dot-unstuffing (RFC 5321 §4.5.2), and the refusal of bare CR, bare LF, NUL, overlong
lines and too much content. Sans-I/O: bytes go in as they come, pieces come out; every byte is looked at a fixed number of
times, whatever the lines and pieces look like. Never stores content. Neighbours: ingress/content keeps the pieces.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

_END: Final = b"\r\n.\r\n"
_PREFIXES_OF_END: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class ContentProblem(Enum):
    """Why content is refused once it has been read to its end."""

    BARE_CR_OR_LF = auto()
    NUL = auto()
    LINE_TOO_LONG = auto()
    TOO_LARGE = auto()


class _ContentCheck:
    """Counts and judges pieces that never split a CRLF.

    Attributes:
        size_bytes: content so far, after unstuffing.
        problem: the first thing found wrong; pieces after it are not worth keeping.
        eight_bit: whether a byte above 127 was seen.
    """

    __slots__ = ("_line_bytes", "_max_bytes", "_max_line_bytes", "eight_bit", "problem", "size_bytes")

    def __init__(self, max_bytes: int, max_line_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_line_bytes = max_line_bytes
        self._line_bytes = 0
        self.size_bytes = 0
        self.problem: ContentProblem | None = None
        self.eight_bit = False

    def _check(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.problem is not None:
            return
        # Every CR stands before an LF and every LF after a CR: taking out the former and putting one before each of the
        # latter changes nothing. Half the price of counting them.
        if piece.replace(b"\r", b"").replace(b"\n", b"\r\n") != piece:
            self.problem = ContentProblem.BARE_CR_OR_LF
        elif b"\0" in piece:
            self.problem = ContentProblem.NUL
        elif self.size_bytes > self._max_bytes:
            self.problem = ContentProblem.TOO_LARGE
        elif self._line_bytes + len(piece) > self._max_line_bytes and self._has_long_line(piece):
            self.problem = ContentProblem.LINE_TOO_LONG
        else:
            end = piece.rfind(b"\n")
            self._line_bytes = len(piece) - end - 1 if end >= 0 else self._line_bytes + len(piece)
        if not self.eight_bit and not piece.isascii():
            self.eight_bit = True

    def _has_long_line(self, piece: bytes) -> bool:
        start, length = 0, self._line_bytes
        while (end := piece.find(b"\n", start)) >= 0:
            if length + end + 1 - start > self._max_line_bytes:
                return True
            start, length = end + 1, 0
        return length + len(piece) - start > self._max_line_bytes


class DataReader(_ContentCheck):
    """Content after DATA. Feed until `rest` is not None; then `rest` holds what follows the final dot."""

    __slots__ = ("_at_start", "_held", "rest")

    def __init__(self, max_bytes: int, max_line_bytes: int) -> None:
        super().__init__(max_bytes, max_line_bytes)
        self._at_start = True
        self._held = b""
        self.rest: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what came; returns the next piece of content ("" when there is none yet, or not worth keeping)."""
        if self._held:
            data = self._held + data
        if self._at_start:  # as if after a line end: a dot on the first line ends or is stuffed, too
            if len(data) < 3 and b".\r\n".startswith(data):
                self._held = data
                return b""
            self._at_start = False
            if data.startswith(b".\r\n"):
                self.rest = data[3:]
                return b""
            if data.startswith(b"."):
                data = data[1:]
        return self._piece(data)

    def _piece(self, data: bytes) -> bytes:
        dot = data.find(b"\r\n.")  # the first line that begins with a dot: stuffed, or the end
        end = data.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            self.rest = data[end + 5 :]
            self._held = b""
            piece = data[: end + 2]
        else:
            held = _held_back(data) if data.endswith(_PREFIXES_OF_END) else b""
            self._held = held
            piece = data[: len(data) - len(held)] if held else data
        if dot >= 0 and dot != end:
            piece = piece.replace(b"\r\n.", b"\r\n")
        self._check(piece)
        return piece if self.problem is None else b""


def _held_back(data: bytes) -> bytes:
    return next(prefix for prefix in _PREFIXES_OF_END if data.endswith(prefix))


class ChunkReader(_ContentCheck):
    """Content of BDAT chunks (RFC 3030): no dots, no end of its own; a CRLF may be split between chunks."""

    __slots__ = ("_held",)

    def __init__(self, max_bytes: int, max_line_bytes: int) -> None:
        super().__init__(max_bytes, max_line_bytes)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take octets of a chunk; returns the next piece of content."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            self._held = b"\r"
            data = data[:-1]
        self._check(data)
        return data if self.problem is None else b""

    def finish(self) -> bytes:
        """After the last chunk: the CRLF that is missing at the end of the content, if it is."""
        if self._held:
            self._check(self._held)
            return b""
        if not self._line_bytes or self.problem is not None:
            return b""
        return self.feed(b"\r\n")
