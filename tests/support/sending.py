"""A sender at work in a test: its context on a log, deliveries put on its topics, and what it recorded.

Owns no expectations. The log is the real embedded one; the resolver answers from a table.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from postrail.core.config import Config
from postrail.core.dns_answers import AddressAnswer, DnsStatus, MxAnswer, MxHost
from postrail.core.identity import delivery_id, new_message_id
from postrail.core.records import (
    BlobRef,
    Deferred,
    Delivery,
    Envelope,
    Event,
    EventType,
    Lane,
    Recipient,
    Route,
    RouteKind,
)
from postrail.core.topics import EVENTS, deferred, laned, outbound
from postrail.log.interface import Append, Log
from postrail.log.sqlite import open_log
from postrail.sender.service import SenderService
from postrail.shell.blobs import DirectoryBlobStore
from postrail.shell.context import Context
from postrail.shell.dns import Resolver
from postrail.wire import codec

HEADER = b"From: <sender@example.org>\r\nTo: <someone@example.com>\r\nSubject: a test\r\n"
BODY = b"First line.\r\nSecond line.\r\n"


class TableResolver:
    """Answers from two tables; what is missing does not exist."""

    def __init__(self, mx: Mapping[str, Sequence[tuple[int, str]]], addresses: Mapping[str, Sequence[str]]) -> None:
        self._mx = mx
        self._addresses = addresses
        self._answers: dict[str, MxAnswer] = {}

    def mx_sync(self, domain: str) -> MxAnswer | None:
        if domain not in self._answers:
            hosts = tuple(MxHost(preference, host) for preference, host in self._mx.get(domain, ()))
            self._answers[domain] = MxAnswer(DnsStatus.FOUND if hosts else DnsStatus.NXDOMAIN, hosts)
        return self._answers[domain]

    async def mx(self, domain: str) -> MxAnswer:
        answer = self.mx_sync(domain)
        assert answer is not None
        return answer

    async def addresses(self, host: str) -> AddressAnswer:
        found = tuple(self._addresses.get(host, ()))
        return AddressAnswer(DnsStatus.FOUND if found else DnsStatus.NXDOMAIN, found)


def sender_config(path: Path, **delivery: Any) -> Config:
    """A configuration for one pool from 127.0.0.1 with quick time-outs; `routing` may be given beside delivery's fields."""
    routing = {"allow_loopback": True, "groups": ("default",), **delivery.pop("routing", {})}
    source = delivery.pop("source", "127.0.0.1")
    timeouts = {"connect_seconds": 2, "quit_seconds": 0.5, **delivery.pop("timeouts", {})}
    limits = {"messages_per_second": 10_000, "new_connections_per_minute": 60_000, **delivery.pop("default_limits", {})}
    return Config.model_validate(
        {
            "hostname": "mx.sender.example",
            "data_directory": str(path),
            "pools": {"default": {"sources": [{"address": source, "ehlo": "out.sender.example"}]}},
            "streams": {"transactional": {"lane": "urgent"}, "marketing": {}},
            "routing": routing,
            "log": {"min_free_bytes": 0},
            "delivery": {"timeouts": timeouts, "default_limits": limits, "drain_seconds": 2, **delivery},
        }
    )


@dataclass
class Sending:
    """A running sender."""

    context: Context
    service: SenderService
    blobs: DirectoryBlobStore

    async def put(self, *deliveries: tuple[Delivery, bytes | None]) -> None:
        """Append deliveries to their outbound topics, each with its body."""
        appends = []
        for delivery, body in deliveries:
            route = delivery.route
            assert route is not None
            topic = laned(outbound(route.pool, route.group), delivery.envelope.lane)
            appends.append(Append(topic, route.key, codec.encode_delivery(delivery), body))
        await self.context.log.append(appends)

    async def events(self, count: int, *, within_seconds: float = 20.0, group: str = "test") -> list[Event]:
        """The first `count` events, or an assertion about those that came."""
        consumer = await self.context.log.consumer([EVENTS], group)
        found: list[Event] = []
        deadline = time.monotonic() + within_seconds
        while len(found) < count and time.monotonic() < deadline:
            found += [codec.decode_event(record.value) for record in await consumer.poll(1000, 0.1)]
        await consumer.close()
        assert len(found) >= count, f"{len(found)} of {count} events: {found}"
        return found

    async def deferrals(self) -> list[Deferred]:
        """Everything in the deferral tiers now."""
        topics = [deferred(tier) for tier in self.context.config.delivery.retry.tiers_seconds]
        return [codec.decode_deferred(value) for value in await self._all(topics)]

    async def committed_everything(self) -> bool:
        """Whether the sender has nothing left on its topics."""
        name = "sender.default.default"
        topics = [laned(outbound("default", "default"), lane) for lane in Lane]
        consumer = await self.context.log.consumer(topics, name + ".check")
        seen = await consumer.poll(10_000, 0.05)
        await consumer.close()
        done = await self.context.log.committed(name, topics)
        return all(
            any(
                p.topic == r.topic and p.partition == r.partition and progress.includes(r.offset)
                for p, progress in done.items()
            )
            for r in seen
        )

    async def _all(self, topics: Sequence[str]) -> list[bytes]:
        consumer = await self.context.log.consumer(topics, f"test.{time.monotonic_ns()}")
        found = [record.value for record in await consumer.poll(100_000, 0.05)]
        await consumer.close()
        return found


@asynccontextmanager
async def sending(
    path: Path,
    config: Config,
    *,
    mx: Mapping[str, Sequence[tuple[int, str]]] | None = None,
    addresses: Mapping[str, Sequence[str]] | None = None,
    log: Log | None = None,
    shares: int = 1,
    start: bool = True,
) -> AsyncIterator[Sending]:
    """A sender that is drained at the end. By default `example.com` has the MX `mx.example.com` at 127.0.0.1."""
    resolver = TableResolver(
        mx or {"example.com": [(10, "mx.example.com")]}, addresses or {"mx.example.com": ["127.0.0.1"]}
    )
    own = log is None
    the_log = log if log is not None else open_log(path / "log.sqlite", config.log)
    blobs = DirectoryBlobStore(path / "blobs")
    context = Context(config, the_log, blobs, cast("Resolver", resolver), shares, path / "slots", jitter=lambda: 0.0)
    service = SenderService(context)
    if start:
        await service.start()
    try:
        yield Sending(context, service, blobs)
    finally:
        await service.drain()
        if own:
            await the_log.close()
        blobs.close()


def a_delivery(
    port: int,
    *recipients: str | Recipient,
    kind: RouteKind = RouteKind.MX,
    next_hop: str = "example.com",
    site: str = "mx.example.com",
    source: str = "127.0.0.1",
    header: bytes = HEADER,
    blob: BlobRef | None = None,
    **envelope: Any,
) -> Delivery:
    """A delivery to one or more recipients; keyword arguments go into the envelope."""
    now = time.time()
    message_id = new_message_id(now, time.monotonic_ns().to_bytes(10, "big"))
    to = tuple(Recipient(one) if isinstance(one, str) else one for one in recipients or ("user@example.com",))
    fields: dict[str, Any] = {
        "reverse_path": "sender@example.org",
        "submitter": "shop",
        "stream": "transactional",
        "lane": Lane.URGENT,
        "received_at": now,
        "expires_at": now + 86400,
        "size_bytes": 1000,
        **envelope,
    }
    return Delivery(
        delivery_id(message_id, to, 1),
        Envelope(message_id, recipients=to, **fields),
        header,
        blob,
        Route(kind, next_hop, port, site, "default", "default", source),
    )


def of_type(events: Iterable[Event], kind: EventType) -> list[Event]:
    """The events of one kind."""
    return [event for event in events if event.type is kind]


async def until(condition: Any, *, within_seconds: float = 10.0) -> None:
    """Wait until a function without arguments gives something true."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)
