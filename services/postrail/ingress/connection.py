"""One connection of a submitter: bytes in, bytes out, and when it ends. Built on aiosmtpd's SMTP, with its readers replaced.

aiosmtpd reads content line by line and holds it all, lets a false end of data through, and answers each command with a
write of its own. Here input is a buffer that is answered from in the transport's own call (`answer`); the session's one
task is woken only for what must wait. Replies leave together when the buffer is empty, and a deadline is a number that
the service's one sweep compares: no timer and no task for a wait. Kept from aiosmtpd are the AUTH exchanges. Owns no
command; those are in `session`. Its neighbour `encryption` adds TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session

from postrail.core import refusals
from postrail.core.refusals import Refused

MAX_LINE_BYTES: Final = 12_288  # RFC 4954 §4: the longest line of an AUTH exchange; others are shorter
_PAUSE_READING_BYTES: Final = 256 << 10
NEVER: Final = float("inf")
CLOSE_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 1 << 20


class ConnectionEnded(Exception):
    """The client has gone, or the connection was closed on it."""


class _Lines:
    """What aiosmtpd's AUTH exchanges read from."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    async def readline(self) -> bytes:
        line: bytes = await self._read()
        return line


class Connection(SMTP):
    """Input, output and deadline of one session. Subclasses give it its commands."""

    # The challenges that clients expect; aiosmtpd's own end in NUL.
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # SMTP.__init__ is not called: it looks through all methods by reflection and sets up a StreamReader, for every
        # connection. What the inherited AUTH exchanges use is set here: session, push() and _reader.readline().
        self.loop = loop
        self.session = Session(loop)
        self.transport: Any = None
        self._reader: Any = _Lines(self.read_line)
        self.deadline = NEVER
        self.timeout_seconds = 300.0
        self.is_idle = False
        self.is_lost = False
        self.is_ended = False
        self.is_tls = False
        self.in_handshake = False
        self._input = b""
        self._at = 0
        self._searched_bytes = 0
        self._is_too_long = False
        self._out: list[bytes] = []
        self._linger_bytes = _LINGER_BYTES
        self._eof = False
        self._reading_paused = False
        self._writing_paused = False
        self._input_waiter: asyncio.Future[None] | None = None
        self._output_waiter: asyncio.Future[None] | None = None
        self._work_waiter: asyncio.Future[Awaitable[None]] | None = None

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self.is_ended:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self.transport.abort()
            return
        if self._at < len(self._input):
            self._input = self._input[self._at :] + data
        else:
            self._input = data
        self._at = 0
        self._serve()
        if len(self._input) - self._at > _PAUSE_READING_BYTES and not self._reading_paused and not self.is_ended:
            self._reading_paused = True
            self.transport.pause_reading()
        _wake(self._input_waiter)

    def eof_received(self) -> bool:
        self._eof = True
        self._serve()
        _wake(self._input_waiter)
        # Half-closed is fine in the clear: what was sent is still answered.
        return not self.is_tls and not self.is_ended

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self.end()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._serve()
        _wake(self._output_waiter)

    # Service

    def answer(self) -> Awaitable[None] | None:
        """Deal with the input that waits, and set the deadline for more of it; `session` does.

        Returns:
            What must be awaited before there is more to be done; None when all was dealt with.
        """
        raise NotImplementedError

    async def until_work(self) -> Awaitable[None]:
        """Let input be answered as it comes, until there is something to await: that. Raises ConnectionEnded."""
        self.flush()
        self.require_client()
        self._resume_reading()
        waiter: asyncio.Future[Awaitable[None]] = self.loop.create_future()
        self._work_waiter = waiter
        try:
            return await waiter
        finally:
            self._work_waiter = None

    def _serve(self) -> None:
        """Answer here and now where the task waits in `until_work`; not while the client does not read its replies."""
        waiter = self._work_waiter
        if waiter is None or waiter.done() or self._writing_paused:
            return
        try:
            work = self.answer()
        except Exception as error:
            waiter.set_exception(error)
            return
        if work is not None:
            waiter.set_result(work)
        elif not self.is_ended:
            self.flush()
            self._resume_reading()
            if self._eof and not waiter.done():
                waiter.set_exception(ConnectionEnded())

    # Input

    @property
    def has_input(self) -> bool:
        """Whether bytes wait that were not taken yet."""
        return self._at < len(self._input)

    async def read_line(self) -> bytes:
        """The next line, with its line end; the whole line must come within `timeout_seconds`.

        Raises:
            Refused: 500 5.5.2, the line is too long; it has been passed over.
            ConnectionEnded: there is none.
        """
        deadline = self.loop.time() + self.timeout_seconds
        while (line := self.next_line()) is None:
            await self.more(deadline)
        return line

    def next_line(self) -> bytes | None:
        """The next line, with its line end; None when the whole of it has not come yet.

        Raises:
            Refused: 500 5.5.2, the line is too long; it has been passed over.
        """
        end = self._input.find(b"\n", self._at + self._searched_bytes) + 1
        if not end:
            self._searched_bytes = len(self._input) - self._at
            if self._searched_bytes > MAX_LINE_BYTES:
                self._is_too_long = True
                self.discard_input()
            return None
        line = self._input[self._at : end]
        self._at = end
        self._searched_bytes = 0
        if self._is_too_long or len(line) > MAX_LINE_BYTES:
            self._is_too_long = False
            raise refusals.unreadable("Line too long")
        return line

    async def take(self, deadline: float) -> bytes:
        """All input that waits; waits for some if there is none. Raises ConnectionEnded."""
        if self._at >= len(self._input):
            await self.more(deadline)
        return self.take_input()

    def take_input(self) -> bytes:
        """All input that waits."""
        data = self._input[self._at :] if self._at else self._input
        self._input, self._at = b"", 0
        return data

    def put_back(self, data: bytes) -> None:
        """Return what `take` gave too much of; nothing was read in between."""
        self._input = data + self._input[self._at :]
        self._at = 0

    def discard_input(self) -> bool:
        """Forget what waits; whether there was any."""
        waited = self.has_input
        self._input, self._at, self._searched_bytes = b"", 0, 0
        return waited

    async def more(self, deadline: float) -> None:
        """Send what is to be sent, and wait until more has come. Raises ConnectionEnded."""
        self.flush()
        self._require_open()
        self._resume_reading()
        had = len(self._input) - self._at
        self.deadline = deadline
        try:
            if self._writing_paused:
                self._output_waiter = self.loop.create_future()
                await self._output_waiter
            if not self.is_ended and not self._eof and len(self._input) - self._at == had:
                self._input_waiter = self.loop.create_future()
                await self._input_waiter
        finally:
            self._input_waiter = self._output_waiter = None
            self.deadline = NEVER
        self._require_open()
        if self._eof and len(self._input) - self._at == had:
            raise ConnectionEnded

    def require_client(self) -> None:
        """Raise ConnectionEnded when nothing more will come."""
        self._require_open()
        if self._eof:
            raise ConnectionEnded

    def _require_open(self) -> None:
        if self.is_ended:
            self.deadline = self.loop.time() + CLOSE_SECONDS
            raise ConnectionEnded

    # Output

    async def push(self, status: Any) -> None:
        """Queue a reply line; aiosmtpd's exchanges call this."""
        self.say(status.encode() if isinstance(status, str) else bytes(status))

    def say(self, line: bytes) -> None:
        """Queue a reply line without its line end; `flush` sends."""
        self._out.append(line)

    def flush(self) -> None:
        """Send the queued replies in one write."""
        if self._out:
            data = b"\r\n".join(self._out) + b"\r\n"
            self._out.clear()
            if not self.is_ended and not self.is_lost:
                self.transport.write(data)

    def end(self, *, lingers: bool = False) -> None:
        """Close: what was written is still sent, within a few seconds. The session's task ends at its next read.

        `lingers`: the client is still sending. A close at once would reset the connection, and the client would never
        read the reply; so only our side is closed, and what comes is thrown away until the client closes, too.
        """
        if not self.is_ended:
            self.flush()
            self.is_ended = True
            if self.transport is not None:
                if lingers and not self.is_lost and not self._eof and self.transport.can_write_eof():
                    self.transport.write_eof()
                    self.discard_input()
                    self._resume_reading()
                else:
                    self.transport.close()
        self.deadline = self.loop.time() + CLOSE_SECONDS
        _wake(self._input_waiter)
        _wake(self._output_waiter)
        if self._work_waiter is not None and not self._work_waiter.done():
            self._work_waiter.set_exception(ConnectionEnded())

    def _resume_reading(self) -> None:
        if self._reading_paused and len(self._input) - self._at <= _PAUSE_READING_BYTES:
            self._reading_paused = False
            self.transport.resume_reading()

    def sweep(self, now: float) -> Refused | None:
        """What the deadline asks for: None, or the refusal that `session` answers. Kills what does not close."""
        if now < self.deadline:
            return None
        if self.is_ended:
            if self.transport is not None:
                self.transport.abort()
            return None
        return refusals.closing(refusals.Reason.TIMEOUT, "4.4.2", "Timed out; closing")

    # AUTH

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Called by aiosmtpd when an exchange has ended: hand the words on; `session` verifies them, off the loop."""
        assert isinstance(auth_data, LoginPassword)
        return AuthResult(success=True, auth_data=auth_data)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
