"""One TCP, TLS or Unix connection under the SMTP client's state machine.

Owns the bytes, the time-outs (`deadline`) and flow control. Decides nothing: `core.smtp_client` says what bytes mean,
`connection` what to do next.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from postrail.core.delivery_config import TimeoutsConfig
from postrail.core.reply_parser import RemoteProtocolError
from postrail.core.smtp_client import SmtpClient
from postrail.core.smtp_events import Command, Event, Goodbye, TransactionOver
from postrail.core.smtp_states import State
from postrail.core.verdicts import Stage
from postrail.sender.deadline import Deadline

WRITE_BUFFER_BYTES = 512 << 10
_FLUSH_SECONDS = 0.01
_LOST_SECONDS = 1.0


class ConnectionBroken(Exception):
    """The connection is of no more use; the message says why."""


class TimedOut(ConnectionBroken):
    """The server did not answer in time, or took no bytes."""


class Wire(asyncio.Protocol):
    """A connection, and the dialogue on it.

    Attributes:
        on_idle_close: called once when the server ends the connection while nobody waits for an event.
    """

    def __init__(self, machine: SmtpClient, timeouts: TimeoutsConfig) -> None:
        self.machine = machine
        self.broken: ConnectionBroken | None = None
        self.on_idle_close: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Event] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._early: Event | None = None
        self._unread = False  # whether more than one event may have come at once
        self._deadline = Deadline(self._loop, self._timed_out)
        self._other_seconds = timeouts.rset_seconds
        self._block_seconds = timeouts.block_seconds
        self._seconds = {
            Stage.GREETING: timeouts.greeting_seconds,
            Stage.EHLO: timeouts.ehlo_seconds,
            Stage.STARTTLS: timeouts.starttls_seconds,
            Stage.MAIL: timeouts.mail_seconds,
            Stage.RCPT: timeouts.rcpt_seconds,
            Stage.DATA: timeouts.data_seconds,
            Stage.CONTENT: timeouts.final_dot_seconds,
        }

    @property
    def transport(self) -> asyncio.Transport:
        """What asyncio gave us."""
        assert self._transport is not None
        return self._transport

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self.machine.receive(data)
        if self._early is not None:
            self._unread = True
            return
        pending = self.machine.pending
        event = self._pull()
        self._unread = event is not None
        if self._waiter is not None:
            if event is not None:
                self._answer(event)
            elif self.machine.pending != pending:
                self._deadline.set(self._reply_seconds())
        elif event is not None:
            self._early = event
            if isinstance(event, Goodbye):
                self._break(ConnectionBroken(f"the server closed the idle session: {event.reply}"))

    def eof_received(self) -> bool:
        self._break(ConnectionBroken("the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(ConnectionBroken(f"the connection was lost: {exc}" if exc else "the server closed the connection"))

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # what the connection calls

    def send(self, command: Command) -> None:
        """Write a command; raises LocalProtocolError, after which nothing was written."""
        data = self.machine.send(command)
        if self.broken is None:
            self.transport.write(data)

    async def event(self) -> Event:
        """The next event.

        Raises:
            ConnectionBroken: there will be none.
        """
        event, self._early = self._early, None
        if event is None and self._unread and self.broken is None:
            event = self._pull()
            self._unread = event is not None
        if event is not None:
            return event
        self._require_open()
        self._waiter = self._loop.create_future()
        self._deadline.set(self._reply_seconds())
        try:
            return await self._waiter
        finally:
            self._waiter = None
            self._deadline.clear()

    def write(self, data: bytes) -> None:
        """Write content without waiting."""
        if self.broken is None:
            self.transport.write(data)

    async def writable(self) -> bool:
        """Wait until the server takes more content; False when it answered already, and wants no more.

        Raises:
            ConnectionBroken: it is gone, or took nothing for too long.
        """
        if self._writable is not None:
            try:
                async with asyncio.timeout(self._block_seconds):
                    await self._writable
            except TimeoutError:
                self._break(TimedOut("the server took no more content"))
        if self._early is not None:
            return False
        self._require_open()
        return True

    async def flushed(self) -> bool:
        """Wait until all that was written left this process; False as for `writable`.

        Raises:
            ConnectionBroken: as `writable`.
        """
        waited_seconds = 0.0
        while self.broken is None and self._early is None and (left := self.transport.get_write_buffer_size()):
            await asyncio.sleep(_FLUSH_SECONDS)
            waited_seconds = waited_seconds + _FLUSH_SECONDS if self.transport.get_write_buffer_size() == left else 0.0
            if waited_seconds > self._block_seconds:
                self._break(TimedOut("the server took no more content"))
        return await self.writable()

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout_seconds: float) -> None:
        """Negotiate TLS and tell the machine.

        Raises:
            ConnectionBroken: the handshake failed, or the server closed after its 220.
        """
        self._require_open()
        try:
            # asyncio never ends the wait for a handshake on a transport that is lost already: hence a limit of our own.
            async with asyncio.timeout(timeout_seconds + _LOST_SECONDS):
                transport = await self._loop.start_tls(
                    self.transport,
                    self,
                    context,
                    server_hostname=server_name,
                    ssl_handshake_timeout=timeout_seconds,
                    ssl_shutdown_timeout=5.0,
                )
        except (OSError, TimeoutError) as error:
            raise ConnectionBroken(f"the TLS handshake failed: {str(error) or type(error).__name__}") from error
        self._require_open()
        if transport is None:
            raise ConnectionBroken("the connection was lost during the TLS handshake")
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.machine.secured()

    def _require_open(self) -> None:
        if self.broken is not None:
            raise self.broken

    def lost(self) -> TransactionOver | None:
        """Give the connection up; what is known of the transaction under way."""
        over = self.machine.lost()
        self.abort()
        return over

    def abort(self) -> None:
        """Close at once; nothing that was not sent yet will be."""
        self._break(ConnectionBroken("closed"))
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close politely."""
        self._break(ConnectionBroken("closed"))
        if self._transport is not None:
            self._transport.close()

    def _pull(self) -> Event | None:
        try:
            event = self.machine.next_event()
        except RemoteProtocolError as error:
            self._break(ConnectionBroken(f"the server broke the protocol: {error}"))
            return None
        output = self.machine.take_output()
        if output and self.broken is None:
            self.transport.write(output)
        return event

    def _answer(self, event: Event) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)
        else:
            self._early = event

    def _break(self, why: ConnectionBroken) -> None:
        if self.broken is not None:
            return
        self.broken = why
        self._deadline.cancel()
        self.resume_writing()
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_exception(why)
        elif self.on_idle_close is not None:
            self.on_idle_close()

    def _reply_seconds(self) -> float:
        stage = self.machine.awaits
        return self._other_seconds if stage is None else self._seconds[stage]

    def _timed_out(self) -> None:
        stage = self.machine.awaits
        what = "final dot" if self.machine.state is State.OUTCOME else str(stage or "last command")
        self._break(TimedOut(f"the server did not answer in time ({what})"))
