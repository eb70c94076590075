"""Dot-stuffing of content on its way out (RFC 5321 §4.5.2), across chunk boundaries.

Owns the last guard against smuggling: content with a bare CR, a bare LF or a NUL is refused before its end is sent, so the
server never takes it. Copies nothing when no line starts with a dot.
"""

from __future__ import annotations

from postrail.core.smtp_commands import LocalProtocolError


class DotStuffer:
    """Turns one message's content into what is sent after 354."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        """The next piece of content, of any size.

        Raises:
            LocalProtocolError: a bare CR, a bare LF or a NUL; the content must not be finished.
        """
        if not chunk:
            return chunk
        self._check(chunk)
        tail = self._tail
        starts_line = tail.endswith(b"\n")
        self._tail = chunk[-2:] if len(chunk) > 1 else tail[-1:] + chunk
        if b"\n." in chunk:
            chunk = chunk.replace(b"\n.", b"\n..")
        return b"." + chunk if starts_line and chunk.startswith(b".") else chunk

    def finish(self) -> bytes:
        """The end: CRLF where the content lacks it, and the final dot.

        Raises:
            LocalProtocolError: the content ends with a bare CR.
        """
        if self._tail.endswith(b"\r"):
            raise LocalProtocolError("the content ends with a bare CR")
        return b".\r\n" if self._tail.endswith(b"\n") else b"\r\n.\r\n"

    def _check(self, chunk: bytes) -> None:
        pairs = chunk.count(b"\r\n")
        feeds, returns = chunk.count(b"\n"), chunk.count(b"\r")
        if self._tail.endswith(b"\r"):
            if not chunk.startswith(b"\n"):
                raise LocalProtocolError("the content has a bare CR")
            feeds -= 1
        if chunk.endswith(b"\r"):
            returns -= 1
        if feeds != pairs or returns != pairs:
            raise LocalProtocolError(f"the content has a bare {'LF' if feeds != pairs else 'CR'}")
        if b"\x00" in chunk:
            raise LocalProtocolError("the content has a NUL")
