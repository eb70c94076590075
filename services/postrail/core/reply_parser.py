"""Cuts what an SMTP or LMTP server sends into replies.

Owns the grammar of replies (RFC 5321 §4.2.1), its bounds, and the enhanced status code at the start of the text (RFC 2034).
Does not know what a reply answers; that is `smtp_client`. Lenient where servers are known to be careless (a bare LF ends a
line, a code without text), strict where two readings are possible.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from postrail.core.replies import Reply

MAX_LINE_BYTES = 4096
MAX_LINES = 256
MAX_TEXT_CHARACTERS = 1024
REMEMBERED = 512
"""Lines and replies that are not read anew: servers say the same few things to every message."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ \-])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")


class RemoteProtocolError(Exception):
    """The server broke the protocol; nothing that it sends later can be relied on."""


class ParsedReply(NamedTuple):
    """A whole reply: its code and the text of each line."""

    code: int
    lines: tuple[str, ...]

    def reply(self) -> Reply:
        """The reply as Postrail keeps it: on one line, its enhanced code taken out of the text."""
        if len(self.lines) == 1:
            return _one_line(self.code, self.lines[0])
        enhanced, texts = "", []
        for line in self.lines:
            match = _ENHANCED.match(line)
            if match is not None and (not enhanced or match[0].rstrip() == enhanced):
                enhanced = match[0].rstrip()
                line = line[match.end() :]  # noqa: PLW2901  # the text without its code
            texts.append(line)
        return Reply(self.code, enhanced, " ".join(texts)[:MAX_TEXT_CHARACTERS])


@lru_cache(REMEMBERED)
def _one_line(code: int, line: str) -> Reply:
    match = _ENHANCED.match(line)
    if match is None:
        return Reply(code, "", line[:MAX_TEXT_CHARACTERS])
    return Reply(code, match[0].rstrip(), line[match.end() :][:MAX_TEXT_CHARACTERS])


@lru_cache(REMEMBERED)
def _read(line: bytes) -> tuple[int, str, bool]:
    """The code and text of a line, and whether it is its reply's last."""
    match = _LINE.fullmatch(line.removesuffix(b"\r"))
    if match is None:
        raise RemoteProtocolError(f"no SMTP reply: {line[:60]!r}")
    text = (match[3] or b"").decode("utf-8", "replace")
    text = (text if text.isprintable() else _printable(text)).strip()
    return int(match[1]), text, match[2] != b"-"


def _printable(text: str) -> str:
    """With a space for each character that could break a line or command a terminal: controls (also C1), bidirectional marks."""
    return "".join([character if character.isprintable() else " " for character in text])


class ReplyParser:
    """Takes bytes as they come, gives whole replies."""

    __slots__ = ("_buffer", "_code", "_lines")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = 0
        self._lines: list[str] = []

    def receive(self, data: bytes) -> None:
        """Take bytes from the server."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_reply(self) -> ParsedReply | None:
        """The next whole reply; None when more bytes are needed.

        Raises:
            RemoteProtocolError: what came is no reply, or exceeds the bounds.
        """
        while self._buffer:
            end = self._buffer.find(b"\n")
            if end > MAX_LINE_BYTES or (end < 0 and len(self._buffer) > MAX_LINE_BYTES):
                raise RemoteProtocolError(f"a reply's line is longer than {MAX_LINE_BYTES} bytes")
            if end < 0:
                return None
            code, text, last = _read(self._buffer[:end])
            self._buffer = self._buffer[end + 1 :]
            if last and not self._lines:
                return ParsedReply(code, (text,))
            self._take_line(code, text)
            if last:
                parsed = ParsedReply(code, tuple(self._lines))
                self._lines = []
                return parsed
        return None

    def discard(self) -> None:
        """Forget all that was received and not yet given (RFC 3207 §4.2)."""
        self._buffer = b""
        self._lines = []

    def _take_line(self, code: int, text: str) -> None:
        """Add one line of several."""
        if self._lines and code != self._code:
            raise RemoteProtocolError(f"a reply changes its code from {self._code} to {code}")
        if len(self._lines) >= MAX_LINES:
            raise RemoteProtocolError(f"a reply has more than {MAX_LINES} lines")
        self._code = code
        self._lines.append(text)
