"""Cuts what an SMTP or LMTP server sends into replies.

Owns the grammar of replies (RFC 5321 §4.2.1), its bounds, and the enhanced status code at the start of the text (RFC 2034).
Does not know what a reply answers; that is `smtp_client`. Lenient where servers are known to be careless (a bare LF ends a
line, a code without text), strict where two readings are possible.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from postrail.core.replies import Reply

MAX_LINE_BYTES = 4096
MAX_LINES = 256
MAX_TEXT_CHARACTERS = 1024

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
        enhanced, texts = "", []
        for line in self.lines:
            match = _ENHANCED.match(line)
            if match is not None and (not enhanced or match[0].rstrip() == enhanced):
                enhanced = match[0].rstrip()
                line = line[match.end() :]  # noqa: PLW2901  # the text without its code
            texts.append(line)
        return Reply(self.code, enhanced, " ".join(texts)[:MAX_TEXT_CHARACTERS])


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
        while True:
            end = self._buffer.find(b"\n")
            if end > MAX_LINE_BYTES or (end < 0 and len(self._buffer) > MAX_LINE_BYTES):
                raise RemoteProtocolError(f"a reply's line is longer than {MAX_LINE_BYTES} bytes")
            if end < 0:
                return None
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            if self._take_line(line.removesuffix(b"\r")):
                parsed = ParsedReply(self._code, tuple(self._lines))
                self._lines = []
                return parsed

    def discard(self) -> None:
        """Forget all that was received and not yet given (RFC 3207 §4.2)."""
        self._buffer = b""
        self._lines = []

    def _take_line(self, line: bytes) -> bool:
        """Add one line; True when it is the reply's last."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise RemoteProtocolError(f"no SMTP reply: {line[:60]!r}")
        code = int(match[1])
        if self._lines and code != self._code:
            raise RemoteProtocolError(f"a reply changes its code from {self._code} to {code}")
        if len(self._lines) >= MAX_LINES:
            raise RemoteProtocolError(f"a reply has more than {MAX_LINES} lines")
        self._code = code
        text = (match[3] or b"").decode("utf-8", "replace")
        self._lines.append((text if text.isprintable() else _printable(text)).strip())
        return match[2] != b"-"


def _printable(text: str) -> str:
    """With a space for each character that could break a line or command a terminal: controls (also C1), bidirectional marks."""
    return "".join([character if character.isprintable() else " " for character in text])
