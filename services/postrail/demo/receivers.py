"""Receivers: real SMTP servers on loopback addresses that record what they accept and misbehave as they are told.

Owns the server's side of the dialogue (RFC 5321, STARTTLS, PIPELINING, DSN). What a receiver answers is its Behaviour: the
base class accepts everything, subclasses refuse, hang and hang up where a test wants it. Neighbours: `habits` (the
behaviours of the demonstration), `ledger` (told by whoever listens to `on_received`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

HANG = "hang"
"""Answer nothing, and keep the connection open."""
CLOSE = "close"
"""Close the connection without an answer."""
TAKE_AND_HANG = "take and hang"
"""Final dot only: record the message, then answer nothing."""
TAKE_AND_CLOSE = "take and close"
"""Final dot only: record the message, then close the connection."""

_PATH = re.compile(rb"(?:FROM|TO):[ ]?<([^>]*)>(.*)", re.IGNORECASE | re.DOTALL)
_OK = "250 2.0.0 OK"
MAX_MESSAGE_BYTES = 100 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """One message that a receiver accepted. `parameters` are those of MAIL, then those of each RCPT."""

    receiver: str
    client_address: str
    helo: str
    tls: bool
    reverse_path: str
    recipients: tuple[str, ...]
    parameters: tuple[str, ...]
    content: bytes

    @property
    def has_bare_line_ends(self) -> bool:
        """Whether a CR or LF stands alone, which must never be sent."""
        pairs = self.content.count(b"\r\n")
        return self.content.count(b"\n") != pairs or self.content.count(b"\r") != pairs


class Behaviour:
    """What a receiver answers. A hook returns a reply line, one of the constants above, or None to go on as usual.

    A reply that starts with 421 closes the connection after it is sent.
    """

    def greeting(self, session: Session) -> str | None:
        return None

    def ehlo(self, session: Session) -> str | None:
        return None

    def mail(self, session: Session, reverse_path: str) -> str | None:
        return None

    def rcpt(self, session: Session, address: str) -> str | None:
        return None

    def data(self, session: Session) -> str | None:
        return None

    def content(self, session: Session, content: bytes) -> str | None:
        return None


@dataclass(slots=True, eq=False)
class Receiver:
    """One simulated mail host.

    Attributes:
        name: its host name, for the greeting.
        address: loopback address; `port` 0 picks a free one, which is then set.
        behaviour: what it answers; may be replaced while it runs.
        on_received: called for each message before the 250 is sent.
        tls: a server context: STARTTLS is offered.
        offers_dsn: whether it announces DSN (RFC 3461).
        latency_seconds: how long it thinks before it answers the final dot.
        refusals: how often each reply code other than 2yz and 3yz was given.
    """

    name: str
    address: str
    port: int
    behaviour: Behaviour
    on_received: Callable[[Received], None]
    tls: ssl.SSLContext | None = None
    offers_dsn: bool = False
    latency_seconds: float = 0.0
    connections: int = 0
    accepted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    sessions: set[Session] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Session(self), self.address, self.port, reuse_address=True, backlog=1000
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for session in list(self.sessions):
            session.cut()
        for _ in range(100):
            if not self.sessions:
                return
            await asyncio.sleep(0.01)


class Session(asyncio.Protocol):
    """One connection. Public fields are for behaviours to look at."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.client_address = ""
        self.helo = ""
        self.tls = False
        self.reverse_path: str | None = None
        self.recipients: list[str] = []
        self.messages = 0
        self._parameters: list[str] = []
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._in_content = False
        self._stopped = False
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.client_address = transport.get_extra_info("peername")[0]
        self.receiver.sessions.add(self)
        self.receiver.connections += 1
        self._answer(self.receiver.behaviour.greeting(self), f"220 {self.receiver.name} ESMTP simulated receiver")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stopped = True
        self.receiver.sessions.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._advance()

    def cut(self) -> None:
        """End the connection at once."""
        self._stopped = True
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        while not self._stopped:
            if self._in_content:
                if not self._take_content():
                    return
                continue
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            self._command(line)

    def _command(self, line: bytes) -> None:
        verb, _, rest = line.partition(b" ")
        handler = self._handlers.get(verb.upper())
        if handler is None:
            self._reply("500 5.5.2 Unknown command")
        else:
            handler(self, rest)

    def _on_ehlo(self, rest: bytes) -> None:
        self.helo = rest.decode("ascii", "replace")
        self._forget()
        extensions = ["PIPELINING", f"SIZE {MAX_MESSAGE_BYTES}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self.receiver.offers_dsn:
            extensions.append("DSN")
        if self.receiver.tls is not None and not self.tls:
            extensions.append("STARTTLS")
        lines = [f"250-{self.receiver.name}", *(f"250-{name}" for name in extensions[:-1]), f"250 {extensions[-1]}"]
        self._answer(self.receiver.behaviour.ehlo(self), "\r\n".join(lines))

    def _on_helo(self, rest: bytes) -> None:
        self.helo = rest.decode("ascii", "replace")
        self._forget()
        self._answer(self.receiver.behaviour.ehlo(self), f"250 {self.receiver.name}")

    def _on_starttls(self, rest: bytes) -> None:
        if self.receiver.tls is None or self.tls:
            self._reply("502 5.5.1 Not available")
            return
        self._reply("220 2.0.0 Ready")
        self._buffer.clear()  # RFC 3207 §4.2: what was pipelined after STARTTLS is discarded
        self._forget()
        self._stopped = True
        self._upgrade = asyncio.get_running_loop().create_task(self._start_tls(self.receiver.tls))

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        assert self._transport is not None
        try:
            upgraded = await asyncio.get_running_loop().start_tls(self._transport, self, context, server_side=True)
        except (OSError, ssl.SSLError):
            self.cut()
            return
        if upgraded is None:
            return
        self._transport = upgraded
        self.tls = True
        self._stopped = False
        self._advance()

    def _on_mail(self, rest: bytes) -> None:
        match = _PATH.match(rest)
        if match is None:
            self._reply("501 5.5.4 MAIL FROM:<address>")
            return
        self._forget()
        path = match[1].decode("utf-8", "replace")
        self._parameters = [match[2].decode("utf-8", "replace").strip()]
        if self._answer(self.receiver.behaviour.mail(self, path), "250 2.1.0 Sender OK"):
            self.reverse_path = path

    def _on_rcpt(self, rest: bytes) -> None:
        match = _PATH.match(rest)
        if match is None or self.reverse_path is None:
            self._reply("503 5.5.1 MAIL first" if match else "501 5.5.4 RCPT TO:<address>")
            return
        address = match[1].decode("utf-8", "replace")
        if self._answer(self.receiver.behaviour.rcpt(self, address), "250 2.1.5 Recipient OK"):
            self.recipients.append(address)
            self._parameters.append(match[2].decode("utf-8", "replace").strip())

    def _on_data(self, rest: bytes) -> None:
        if not self.recipients:
            self._reply("554 5.5.1 No valid recipients")
            return
        if self._answer(self.receiver.behaviour.data(self), "354 Go ahead"):
            self._in_content = True
            self._buffer[:0] = b"\r\n"

    def _on_rset(self, rest: bytes) -> None:
        self._forget()
        self._reply(_OK)

    def _on_noop(self, rest: bytes) -> None:
        self._reply(_OK)

    def _on_quit(self, rest: bytes) -> None:
        self._reply("221 2.0.0 Bye")
        self._close()

    _handlers: dict[bytes, Callable[[Session, bytes], None]] = {  # noqa: RUF012  # never changed
        b"EHLO": _on_ehlo,
        b"HELO": _on_helo,
        b"STARTTLS": _on_starttls,
        b"MAIL": _on_mail,
        b"RCPT": _on_rcpt,
        b"DATA": _on_data,
        b"RSET": _on_rset,
        b"NOOP": _on_noop,
        b"QUIT": _on_quit,
    }

    def _take_content(self) -> bool:
        """Take a whole message out of the buffer; False while its end has not come."""
        end = self._buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        content = bytes(self._buffer[: end + 2]).replace(b"\r\n..", b"\r\n.")[2:]
        del self._buffer[: end + 5]
        self._in_content = False
        if self.receiver.latency_seconds:
            self._stopped = True
            asyncio.get_running_loop().call_later(self.receiver.latency_seconds, self._after_latency, content)
        else:
            self._finish(content)
        return True

    def _after_latency(self, content: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._stopped = False
            self._finish(content)
            self._advance()

    def _finish(self, content: bytes) -> None:
        answer = self.receiver.behaviour.content(self, content)
        if answer is None or answer.startswith("2") or answer in {TAKE_AND_HANG, TAKE_AND_CLOSE}:
            self.messages += 1
            self.receiver.accepted += 1
            self.receiver.on_received(
                Received(
                    self.receiver.name,
                    self.client_address,
                    self.helo,
                    self.tls,
                    self.reverse_path or "",
                    tuple(self.recipients),
                    tuple(self._parameters),
                    content,
                )
            )
        self._answer(answer, "250 2.0.0 Accepted")
        self._forget()

    def _answer(self, answer: str | None, usual: str) -> bool:
        """Send the behaviour's answer, or the usual one; whether the command goes on."""
        if answer in {HANG, TAKE_AND_HANG}:
            self._stopped = True
            return False
        if answer in {CLOSE, TAKE_AND_CLOSE}:
            self.cut()
            return False
        line = answer or usual
        if line[0] not in "23":
            self.receiver.refusals[line.split(" ", 1)[0]] += 1
        self._reply(line)
        if line.startswith("421"):
            self._close()
        return line[0] in "23"

    def _reply(self, line: str) -> None:
        if self._transport is not None:
            self._transport.write(line.encode() + b"\r\n")

    def _close(self) -> None:
        self._stopped = True
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()

    def _forget(self) -> None:
        self.reverse_path = None
        self.recipients = []
        self._parameters = []
