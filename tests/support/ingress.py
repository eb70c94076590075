"""A running ingress on loopback ports, with the embedded log behind it.

Owns its configuration and its way to start and stop, and what tests read back from the log. The clients are smtplib and raw
sockets in threads, because the service runs in the test's own loop.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from argon2 import PasswordHasher

from postrail.core import topics
from postrail.core.config import Config
from postrail.core.records import Event, Message
from postrail.demo.credentials import write_certificate
from postrail.ingress.service import IngressService
from postrail.log.interface import Log
from postrail.log.sqlite import open_log
from postrail.shell.blobs import DirectoryBlobStore
from postrail.shell.context import Context
from postrail.shell.dns import Resolver
from postrail.wire import codec

T = TypeVar("T")
PASSWORD = "correct horse"
_HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
SUBMISSION, SUBMISSIONS, TRUSTED, STRANGERS = range(4)
HEADER = b"From: a@example.com\r\n\r\n"
"""The least that a message needs."""


def settings(folder: Path, **limits: object) -> dict[str, Any]:
    """Four listeners (see the constants above), two submitters; `limits` are ingress.limits."""
    certificate, key = write_certificate(folder, "mail.example.com")
    return {
        "hostname": "mail.example.com",
        "data_directory": str(folder / "data"),
        "log": {"min_free_bytes": 0},
        "ingress": {
            "listeners": [
                {"kind": "submission", "address": "127.0.0.1", "port": 0},
                {"kind": "submissions", "address": "127.0.0.1", "port": 0},
                {
                    "kind": "trusted",
                    "address": "127.0.0.1",
                    "port": 0,
                    "networks": ["127.0.0.0/8"],
                    "submitter": "relay",
                },
                {
                    "kind": "trusted",
                    "address": "127.0.0.1",
                    "port": 0,
                    "networks": ["192.0.2.0/24"],
                    "submitter": "relay",
                },
            ],
            "tls": {"certificate_file": str(certificate), "key_file": str(key)},
            "limits": {"auth_failure_delay_seconds": 0.01, **limits},
        },
        "submitters": [
            {
                "name": "shop",
                "password_hash": _HASH,
                "domains": ["example.com", ".example.com"],
                "streams": ["marketing"],
            },
            {"name": "relay", "domains": ["*"], "null_sender": True},
        ],
        "pools": {"default": {"sources": [{"address": "127.0.0.1", "ehlo": "mail.example.com"}]}},
        "signing": {"require": False},
    }


@dataclass(slots=True)
class Stored:
    """One accepted message as the log has it."""

    message: Message
    body: bytes
    topic: str


@dataclass(slots=True)
class Ingress:
    """The running service."""

    service: IngressService
    log: Log
    blobs: DirectoryBlobStore
    _seen: list[Stored] = field(default_factory=list)

    def port(self, listener: int) -> int:
        """The port of a listener, by the constants of this module."""
        return self.service.ports[listener]

    async def stored(self) -> list[Stored]:
        """All messages in the log, with their bodies."""
        consumer = await self.log.consumer(topics.lanes(topics.ACCEPTED), "test")
        found = []
        for record in await consumer.poll(1000, 0.05):
            message = codec.decode_message(record.value)
            if message.blob is not None:
                body = await self.blobs.read(message.blob)
            else:
                assert record.body is not None
                body = await record.body.load()
            found.append(Stored(message, body, record.topic))
        await consumer.close()
        return found

    async def events(self) -> list[Event]:
        """All events in the log."""
        consumer = await self.log.consumer([topics.EVENTS], "test-events")
        found = [codec.decode_event(record.value) for record in await consumer.poll(1000, 0.05)]
        await consumer.close()
        return found

    def blob_files(self) -> list[Path]:
        """Every file in the blob store."""
        return [path for path in self.blobs.path.rglob("*") if path.is_file()]


@asynccontextmanager
async def running(
    folder: Path, data: dict[str, Any], *, log: Log | None = None, wrap: Callable[[Log], Log] = lambda log: log
) -> AsyncIterator[Ingress]:
    """Start an ingress, and drain it in the end. `wrap` puts a fault before the log."""
    config = Config.model_validate(data)
    own = log or open_log(folder / "log.sqlite", config.log)
    blobs = DirectoryBlobStore(folder / "blobs")
    context = Context(config, wrap(own), blobs, Resolver(config.routing.dns), 1, folder)
    service = IngressService(context, 0)
    await service.start()
    try:
        yield Ingress(service, own, blobs)
    finally:
        await service.drain()
        blobs.close()
        if log is None:
            await own.close()


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking client beside the service."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


class Client(smtplib.SMTP):
    """smtplib's client that shows replies with their enhanced codes as text."""

    def say(self, line: str) -> str:
        """Send a command; `CODE text` of the reply."""
        code, text = self.docmd(line)
        return f"{code} {text.decode()}"

    def content(self, data: bytes) -> str:
        """Send what follows 354 as it is; the reply."""
        assert self.sock is not None
        self.sock.sendall(data)
        code, text = self.getreply()
        return f"{code} {text.decode()}"


def client_context() -> ssl.SSLContext:
    """A context that trusts anybody: the certificates of tests are self-signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(ingress: Ingress, listener: int = TRUSTED, *, tls: bool = False, login: bool = False) -> Client:
    """Connect and say EHLO; on the submission port with STARTTLS and AUTH where asked for. Blocking."""
    client = Client("127.0.0.1", ingress.port(listener), local_hostname="client.example.net", timeout=10)
    client.ehlo()
    if tls or login:
        client.starttls(context=client_context())
        client.ehlo()
    if login:
        client.login("shop", PASSWORD)
    return client


def conversation(ingress: Ingress, listener: int, lines: Sequence[str], **how: bool) -> str:
    """Say the lines; the last reply. A line that starts with `.` is content. Blocking."""
    with connect(ingress, listener, **how) as client:
        reply = ""
        for line in lines:
            reply = client.say(line)
        return reply
