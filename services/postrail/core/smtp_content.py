"""Dot-stuffing of content on its way out (RFC 5321 §4.5.2), across chunk boundaries.

Owns the last guard against smuggling: content with a bare CR, a bare LF or a NUL is refused before its end is sent, so the
server never takes it. Whatever was checked before, this looks at every byte again, in one pass.
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder

from postrail.core.smtp_commands import LocalProtocolError

LF = "\n"


class DotStuffer:
    """Turns one message's content into what is sent after 354."""

    __slots__ = ("_line_ends", "_starts_line")

    def __init__(self) -> None:
        self._line_ends = IncrementalNewlineDecoder(None, translate=False)  # tells which kinds of line ends it has seen
        self._starts_line = True

    def feed(self, chunk: bytes) -> bytes:
        """The next piece of content, of any size.

        Raises:
            LocalProtocolError: a bare CR, a bare LF or a NUL; the content must not be finished.
        """
        if not chunk:
            return chunk
        self._line_ends.decode(chunk.decode("latin-1"))
        self._check()
        if b"\x00" in chunk:
            raise LocalProtocolError("the content has a NUL")
        starts_line, self._starts_line = self._starts_line, chunk.endswith(b"\n")
        if chunk.rfind(b"\n.") >= 0:
            chunk = chunk.replace(b"\n.", b"\n..")
        return b"." + chunk if starts_line and chunk.startswith(b".") else chunk

    def finish(self) -> bytes:
        """The end: CRLF where the content lacks it, and the final dot.

        Raises:
            LocalProtocolError: the content ends with a bare CR.
        """
        self._line_ends.decode("", final=True)
        self._check()
        return b".\r\n" if self._starts_line else b"\r\n.\r\n"

    def _check(self) -> None:
        seen = self._line_ends.newlines
        if seen is not None and seen != "\r\n":
            raise LocalProtocolError(f"the content has a bare {'LF' if LF in seen else 'CR'}")


def stuffed(*parts: bytes) -> bytes:
    """The whole of a message's content with its end; raises as `DotStuffer`."""
    content = b"".join(parts)
    # Only where every CR stands before an LF and every LF after a CR does this give the same again. A third of the price of
    # the stuffer's look at it, which finds out what is wrong.
    if content.replace(b"\r", b"").replace(b"\n", b"\r\n") != content or b"\0" in content:
        stuffer = DotStuffer()
        return stuffer.feed(content) + stuffer.finish()
    if content.rfind(b"\n.") >= 0:
        content = content.replace(b"\n.", b"\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content + (b".\r\n" if content.endswith(b"\n") or not content else b"\r\n.\r\n")
