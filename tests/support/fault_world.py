"""The world of a fault test: Postrail as it is started in production, its DNS, destinations that misbehave, and the ledger.

Owns the peers, the clients and the reading of what became of the mail. Each test makes destinations of its own, so that what
one does to a site touches no other test. Whether the books are even is checked once, when the world ends. Neighbours: the
demonstration brings the system, DNS server, receivers and ledger; `chaos_world` is for what needs kill -9.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from postrail.cli.queue import Waiting, as_waiting
from postrail.core.records import FINAL_EVENTS, Event, EventType
from postrail.core.topics import EVENTS, holds_mail
from postrail.demo.credentials import server_context, write_certificate
from postrail.demo.dns_server import DnsServer
from postrail.demo.ledger import FIELD, Ledger, body_digest, bounces_in, ledger_id_of
from postrail.demo.receivers import Behaviour, Received, Receiver
from postrail.demo.system import System
from postrail.demo.world import SENDER_DOMAIN, SENDER_HOST
from postrail.log.sqlite import inspect
from postrail.wire import codec
from tests.support.fault_client import ANSWER_SECONDS, Client
from tests.support.fault_configuration import (
    SENDER,
    SUBMISSION,
    TRUSTED,
    configuration,
)
from tests.support.processes import daemon_folder, free_port, tail

BODY = b"Hello,\r\n.a line that begins with a dot\r\n..and one with two\r\nThe end.\r\n"


@dataclass(slots=True)
class Place:
    """A destination. `mail` is what its receiver took."""

    domain: str
    address: str
    receiver: Receiver | None
    mail: list[Received] = field(default_factory=list)

    def __call__(self, local_part: str) -> str:
        """An address of this domain."""
        return f"{local_part}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Sent:
    """An accepted message."""

    message_id: str
    ledger_id: str


@dataclass(slots=True)
class FaultWorld:
    """Everything a fault test has around it. Made by `fault_world`.

    Attributes:
        reports: notifications that the senders got, as they came.
        receivers: all that listen; the one of the senders is named home.
        allowed_repeats: second copies that a test has brought about on purpose.
        ports: of the listeners, by the constants of `fault_configuration`.
    """

    system: System
    ports: Sequence[int]
    ledger: Ledger = field(default_factory=Ledger)
    reports: list[Received] = field(default_factory=list)
    allowed_repeats: int = 0
    bare_line_ends: int = 0
    receivers: list[Receiver] = field(default_factory=list)
    _count: int = 0
    _clients: set[Client] = field(default_factory=set)

    # Destinations

    async def place(self, behaviour: Behaviour | None = None, *, listens: bool = True, **how: Any) -> Place:
        """A new domain with one MX host. `listens` False: another server will."""
        self._count += 1
        domain, address = f"d{self._count}.example", f"127.0.45.{self._count}"
        place = Place(domain, address, None)

        def received(message: Received) -> None:
            place.mail.append(message)
            self.record(message)

        self.system.dns.add(domain, "MX", f"10 mx.{domain}.")
        self.system.dns.add(f"mx.{domain}", "A", address)
        if listens:
            place.receiver = Receiver(
                f"mx.{domain}", address, self.system.mx_port, behaviour or Behaviour(), received, **how
            )
            await self._start(place.receiver)
        return place

    async def _start(self, receiver: Receiver) -> None:
        self.receivers.append(receiver)
        await receiver.start()

    async def open_home(self) -> None:
        """The receiver of the senders' own domain: what comes there are notifications."""
        self.system.dns.add(SENDER_DOMAIN, "MX", f"10 home.{SENDER_DOMAIN}.")
        self.system.dns.add(f"home.{SENDER_DOMAIN}", "A", "127.0.45.250")
        await self._start(
            Receiver(f"home.{SENDER_DOMAIN}", "127.0.45.250", self.system.mx_port, Behaviour(), self._reported)
        )

    def _reported(self, message: Received) -> None:
        self.bare_line_ends += message.has_bare_line_ends
        self.reports.append(message)
        for bounce in bounces_in(message.content):
            self.ledger.bounced(bounce)

    def record(self, message: Received) -> None:
        """Tell the ledger what a receiver took."""
        self.bare_line_ends += message.has_bare_line_ends
        ledger_id = ledger_id_of(message.content)
        if ledger_id is not None:
            for recipient in message.recipients:
                self.ledger.received(ledger_id, recipient, body_digest(message.content))

    def server_tls(self) -> ssl.SSLContext:
        """A context for a receiver with STARTTLS."""
        return server_context(*write_certificate(self.system.folder, SENDER_HOST))

    # Submission

    async def connect(
        self, listener: int = TRUSTED, *, source: str = "127.0.0.1", ehlo: str = "client.test", tls: bool = False
    ) -> Client:
        """A connection after its greeting and, where `ehlo` is set, EHLO; with STARTTLS where asked for."""
        opened = await asyncio.open_connection("127.0.0.1", self.ports[listener], local_addr=(source, 0), limit=1 << 22)
        client = Client(*opened, self._clients)
        greeting = await client.reply()
        if greeting.startswith("220") and ehlo:
            await client.say(f"EHLO {ehlo}")
            if tls:
                await client.start_tls()
        return client

    def content(self, *, body: bytes = BODY, extra: str = "") -> tuple[str, bytes]:
        """A message that the ledger knows of: its ledger id, and its content before dot-stuffing."""
        self._count += 1
        ledger_id = f"fault-{self._count}"
        self.ledger.offered(ledger_id, sha256(body).digest())
        head = f"From: {SENDER}\r\nSubject: {ledger_id}\r\n{FIELD.decode()}: {ledger_id}\r\n{extra}\r\n"
        return ledger_id, head.encode() + body

    async def submit(
        self,
        *recipients: str,
        sender: str = SENDER,
        body: bytes = BODY,
        extra: str = "",
        parameters: str = "",
        books: bool = True,
    ) -> Sent:
        """Submit one message; each must get its 250. A recipient may have parameters (`a@b NOTIFY=NEVER`).

        `books` False: the ledger is not told that it was accepted, for mail whose failure is told to nobody.
        """
        ledger_id, content = self.content(body=body, extra=extra)
        client = await self.connect()
        try:
            reply = await client.say(f"MAIL FROM:<{sender}> {parameters}".rstrip())
            assert reply.startswith("250"), reply
            for recipient in recipients:
                address, _, rest = recipient.partition(" ")
                reply = await client.say(f"RCPT TO:<{address}> {rest}".rstrip())
                assert reply.startswith("250"), reply
            assert (await client.say("DATA")).startswith("354")
            stuffed = content.replace(b"\r\n.", b"\r\n..")
            await client.send(stuffed + b".\r\n")
            reply = await client.reply()
            assert reply.startswith("250 2.0.0 Ok: queued as "), reply
        finally:
            await client.close()
        for recipient in recipients if books else ():
            self.ledger.submitted(ledger_id, recipient.partition(" ")[0], sha256(body).digest())
        return Sent(reply.rsplit(" ", 1)[1], ledger_id)

    # What became of it

    async def events(self, message_id: str) -> list[Event]:
        """The events of a message, oldest first."""
        return await asyncio.to_thread(self._events, message_id)

    def _events(self, message_id: str) -> list[Event]:
        return [
            codec.decode_event(record.value)
            for path in inspect.log_files(self.system.folder / "data")
            for record in inspect.records_by_key(path, EVENTS, message_id.encode())
        ]

    async def fates(self, sent: Sent, recipients: int = 1) -> dict[str, EventType]:
        """Wait until so many recipients have reached a final state; address → state."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            events = await self.events(sent.message_id)
            found = {
                address: event.type for event in events if event.type in FINAL_EVENTS for address in event.recipients
            }
            if len(found) >= recipients:
                return found
            assert time.monotonic() < deadline, f"{sent}: {events}\n{self.said()}"
            await asyncio.sleep(0.05)

    async def event(self, sent: Sent, kind: EventType) -> Event:
        """Wait for the first event of a kind."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            events = await self.events(sent.message_id)
            for event in events:
                if event.type is kind:
                    return event
            assert time.monotonic() < deadline, f"no {kind.name} of {sent}: {events}\n{self.said()}"
            await asyncio.sleep(0.05)

    async def report(self, sent: Sent) -> Received:
        """Wait for the notification about a message."""
        await self.until(lambda: self.reports_about(sent))
        (found,) = self.reports_about(sent)
        return found

    def reports_about(self, sent: Sent) -> list[Received]:
        """The notifications about a message that have come."""
        return [report for report in self.reports if sent.message_id.encode() in report.content]

    def waiting(self) -> list[Waiting]:
        """What the queue shows."""
        return [
            as_waiting(record)
            for path in inspect.log_files(self.system.folder / "data")
            for record in inspect.unfinished(path, holds_mail)
        ]

    async def until(self, condition: Any, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until something in this process is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come to be\n{self.said()}"
            await asyncio.sleep(0.01)

    def log_has(self, *words: str) -> bool:
        """Whether a line of the system's log holds all the words."""
        text = self.system.log_file.read_text(encoding="utf-8", errors="replace")
        return any(all(word in line for word in words) for line in text.splitlines())

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.system.health_port, limit=1 << 22)
        try:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            text = (await reader.read(-1)).decode()
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        assert lines, f"there is no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    @property
    def memory_bytes(self) -> int:
        """What the system has in memory, without what is mapped from files (the log's own file is)."""
        assert self.system.process is not None
        status = Path(f"/proc/{self.system.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("RssAnon:")[2].split()[0]) << 10

    def said(self) -> str:
        """The end of what the system printed and logged."""
        return f"{tail(self.system.folder / 'output.log', 20)}\n{tail(self.system.log_file, 30)}"

    async def until_idle(self) -> None:
        """Wait until nothing waits.

        The topics are read one after another, so a record that goes back from a later one to an earlier one can be missed:
        the queue counts as empty when it is so several times in a row.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        empty = 0
        while empty < 4:
            queued = await asyncio.to_thread(self.waiting)
            empty = 0 if queued else empty + 1
            assert time.monotonic() < deadline, f"still in the queue: {queued[:3]}\n{self.said()}"
            await asyncio.sleep(0.05)

    async def balance(self) -> None:
        """Wait until nothing waits, and assert that the books are even: L, D, U and B of the ledger."""
        await self.until_idle()
        balance = self.ledger.balance()
        assert not balance.lost, balance.lost
        assert balance.duplicates == self.allowed_repeats
        assert (balance.altered, balance.unaccepted_repeats, balance.bounced_and_delivered) == (0, 0, 0)
        assert self.bare_line_ends == 0, "a bare CR or LF was sent"
        assert not self.log_has('"level":"error"'), self.said()

    async def close(self) -> None:
        """End everything."""
        for client in list(self._clients):
            await client.close()
        self.system.kill()
        if self.system.process is not None:
            await self.system.process.wait()
        for receiver in self.receivers:
            await receiver.stop()
        await self.system.dns.stop()


@asynccontextmanager
async def fault_world(**overrides: Mapping[str, Any]) -> AsyncIterator[FaultWorld]:
    """A running world. Its books are checked at the end, unless it ends with an exception.

    Args:
        overrides: sections of the configuration, merged into those of `configuration` field by field.
    """
    with daemon_folder("fault") as folder:
        dns = DnsServer()
        await dns.start()
        ports = (free_port(), free_port(), free_port())
        system = System(folder, dns, free_port(), submission_port=ports[SUBMISSION])
        system.overrides = configuration(folder, ports, overrides)
        system.write()
        world = FaultWorld(system, ports)
        try:
            await world.open_home()
            await system.start()
            yield world
            await world.balance()
            assert await system.stop() == 0, world.said()
        finally:
            await world.close()
