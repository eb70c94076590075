"""What a single service needs around it in a test: a log in a folder, a clock that the test moves, and mail to put in.

Owns no service and no peer. `Setting` reads the topics that the service writes with a group of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from postrail.core.config import Config
from postrail.core.identity import delivery_id, new_message_id
from postrail.core.log_config import LogConfig
from postrail.core.records import (
    Deferred,
    Delivery,
    Envelope,
    Event,
    Lane,
    Message,
    MessageId,
    Recipient,
)
from postrail.core.topics import DEAD_LETTERS, EVENTS
from postrail.log.interface import Append, Log, Record
from postrail.log.sqlite import open_log
from postrail.shell.blobs import DirectoryBlobStore
from postrail.shell.context import Context
from postrail.shell.dns import Resolver
from postrail.wire import codec

BODY = b"Hello there.\r\n"
HEADER_BLOCK = b"From: sender@sender.test\r\nSubject: a test\r\n"


class MovableClock:
    """Real time, moved by `offset` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class Setting:
    """The surroundings of one service."""

    def __init__(self, log: Log, config: Config, folder: Path) -> None:
        self.log = log
        self.clock = MovableClock()
        self.resolver = Resolver(config.routing.dns)
        self.context = Context(
            config, log, DirectoryBlobStore(folder / "blobs"), self.resolver, 1, folder / "slots", self.clock
        )

    async def put(self, topic: str, value: bytes, key: bytes = b"key") -> None:
        """Append one record with the body of every test message."""
        await self.log.append([Append(topic, key, value, BODY)])

    async def taken(self, topic: str, at_least: int, seconds: float = 15.0) -> list[Record]:
        """All records of a topic once there are that many; a group of the test's own reads them from the start."""
        consumer = await self.log.consumer([topic], f"test-{time.monotonic_ns()}")
        try:
            found: list[Record] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while len(found) < at_least:
                        found += await consumer.poll(1000, 0.2)
            found += await consumer.poll(1000, 0.0)
            assert len(found) >= at_least, f"{topic}: {len(found)} of {at_least} records after {seconds:g} s"
            return found
        finally:
            await consumer.close()

    async def events(self, at_least: int) -> list[Event]:
        return [codec.decode_event(record.value) for record in await self.taken(EVENTS, at_least)]

    async def deliveries(self, topic: str, at_least: int) -> list[Delivery]:
        return [codec.decode_delivery(record.value) for record in await self.taken(topic, at_least)]

    async def nothing_in(self, *topics: str) -> None:
        """Check that nothing was written to these topics; dead-letters are checked as well."""
        for topic in (*topics, DEAD_LETTERS):
            assert await self.taken(topic, 0) == [], topic


@contextlib.asynccontextmanager
async def setting(folder: Path, **sections: Any) -> AsyncIterator[Setting]:
    """Open the log of `folder` with a configuration of these sections beside the least that is needed."""
    data: dict[str, Any] = {
        "hostname": "mail.sender.test",
        "data_directory": str(folder),
        "pools": {"default": {"sources": [{"address": "127.0.0.2", "ehlo": "out.sender.test"}]}},
    }
    config = Config.model_validate({**data, **sections})
    log = cast("Log", open_log(folder / "log.sqlite", LogConfig(min_free_bytes=0)))
    made = Setting(log, config, folder)
    try:
        yield made
    finally:
        await made.resolver.close()
        await log.close()


def message_id(number: int = 0) -> MessageId:
    return new_message_id(1_800_000_000.0, number.to_bytes(10, "big"))


def envelope(*addresses: str, number: int = 0, **fields: Any) -> Envelope:
    now = time.time()
    recipients = tuple(map(Recipient, addresses or ("user@rcpt.test",)))
    identity = message_id(number)
    values: dict[str, Any] = {"received_at": now, "expires_at": now + 86400.0, "size_bytes": 100, **fields}
    return Envelope(identity, "sender@sender.test", recipients, "app", "transactional", Lane.URGENT, **values)


def message(*addresses: str, number: int = 0, **fields: Any) -> bytes:
    """A record of the topic signed."""
    return codec.encode_message(Message(envelope(*addresses, number=number, **fields), HEADER_BLOCK))


def delivery(*addresses: str, number: int = 0, attempts: int = 1, **fields: Any) -> Delivery:
    """A delivery that was tried before."""
    mail = envelope(*addresses, number=number, **fields)
    identity = delivery_id(mail.message_id, mail.recipients, attempts + 1)
    return Delivery(identity, mail, HEADER_BLOCK, None, None, attempts)


def deferral(due_at: float, number: int = 0) -> bytes:
    """A record of a tier."""
    return codec.encode_deferred(Deferred(delivery(number=number), due_at - 60.0, due_at, "451 4.3.0 later"))


async def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is watched has no event
            await asyncio.sleep(0.02)
