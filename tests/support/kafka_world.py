"""The world of tests on the Kafka log: each service a process of its own, several of one where a test wants it.

Owns the processes and the waiting; peers, injector and ledger live in the test's process. Neighbours: `kafka` brings the brokers,
`chaos_world` the receivers and the configuration that both kinds of world share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from postrail.cli.main import main as postrail_main
from postrail.core import topics
from postrail.core.config import Config
from postrail.demo.dns_server import DnsServer
from postrail.demo.ledger import Balance
from postrail.demo.receivers import Behaviour, Receiver
from postrail.demo.system import System
from postrail.shell.configuration import load
from tests.support.chaos_books import Books
from tests.support.chaos_injector import Injector
from tests.support.chaos_world import DOMAINS, configuration, receivers_of
from tests.support.kafka_recorded import GROUP, Recorded, TopicReader
from tests.support.processes import daemon_folder, free_port, tail
from tests.support.service_launcher import LAUNCHER, Launched

SERVICES = ("sender", "scheduler", "routing", "signing", "ingress")
"""Downstream first: the order in which they are started."""
START_SECONDS = 120.0
STOP_SECONDS = 90.0


@dataclass(slots=True)
class Member:
    """One service process. `name` is `sender`, or `sender-2` for another of the same service.

    Attributes:
        has_place: it comes back under its name within its groups, as a pod does, and gets its partitions back at once.
    """

    name: str
    folder: Path
    config_file: Path
    breakage: str | None = None
    has_place: bool = False
    _process: Launched | None = None
    _life_at_bytes: int = 0

    @property
    def output(self) -> Path:
        """What all its lives printed, its log included."""
        return self.folder / f"{self.name}.log"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def begin(self) -> None:
        """Start the process; it is not ready yet."""
        with self.output.open("ab") as output:
            output.write(b"--- start\n")
            self._life_at_bytes = output.tell()
        arguments = [self.name.partition("-")[0], "--config", str(self.config_file)]
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "HOSTNAME": self.name} if self.has_place else {}
        launch = partial(LAUNCHER.launch, arguments, self.output, environment, self.breakage)
        self._process = await asyncio.to_thread(launch)

    def is_ready(self) -> bool:
        """Whether this life said so."""
        with self.output.open("rb") as output:
            output.seek(self._life_at_bytes)
            life = output.read().decode(errors="replace")
        return any(_event(line) == "ready" for line in life.splitlines() if '"ready"' in line)

    @property
    def pid(self) -> int:
        """Of the last life."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it at once."""
        if self.runs:
            self.signal(signal.SIGKILL)
            await self.ended()

    async def stop(self) -> int:
        """End it as a pod is ended; returns the exit status."""
        if self.runs:
            self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    def said(self) -> str:
        """The end of its output."""
        return f"--- {self.name}\n{tail(self.output, 20)}"


@dataclass(slots=True)
class KafkaWorld:
    """Services and their surroundings. Made by `kafka_world`; nothing runs before `start`.

    Attributes:
        breakage: one of `chaos_broken`, for what is started from now on.
        have_places: what is started from now on comes back under its name (`Member.has_place`).
        recorded: tells what the brokers hold as delivered.
    """

    system: System
    receivers: Mapping[str, Receiver]
    books: Books
    injector: Injector
    bootstrap: str
    breakage: str | None = None
    have_places: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    recorded: Recorded = field(init=False)

    def __post_init__(self) -> None:
        self.recorded = Recorded(TopicReader(self.bootstrap, self.parts))

    @property
    def config(self) -> Config:
        return load(self.system.config_file)

    @property
    def prefix(self) -> str:
        kafka = self.config.log.kafka
        assert kafka is not None
        return kafka.topic_prefix

    async def apply_topics(self) -> None:
        """Make the topics, as an operator does."""
        arguments = ["topics", "apply", "--config", str(self.system.config_file)]
        assert await asyncio.to_thread(postrail_main, arguments) == 0

    async def begin(self, name: str) -> Member:
        """Start one service; it is not ready yet."""
        member = self.members.setdefault(name, Member(name, self.system.folder, self.system.config_file))
        member.breakage, member.has_place = self.breakage, self.have_places
        await member.begin()
        return member

    async def start(self, *names: str) -> None:
        """Start these services (all: one of each), and return when they are ready."""
        begun = [await self.begin(name) for name in names or SERVICES]
        await self.until("the services are ready", lambda: all(map(_ready, begun)), START_SECONDS)

    async def stop(self, *names: str) -> None:
        """End these services (all) as pods are ended, at the same time; their status must be 0."""
        wanted = [self.members[name] for name in names] or list(self.members.values())
        running = [member for member in wanted if member.runs]
        for member, status in zip(running, await asyncio.gather(*(member.stop() for member in running)), strict=True):
            assert status == 0, f"SIGTERM ended it with {status}\n{member.said()}"

    async def until(self, what: str, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something in this process is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"after {seconds:g} s still waiting until {what}\n{self.said()}"
            await asyncio.sleep(0.02)

    async def settle(self, seconds: float = 90.0) -> Balance:
        """Wait until all that was accepted has arrived and nothing is left to read, stop, and balance the books."""
        await self.until("all mail has arrived", lambda: not self.books.ledger.open_count, seconds)
        await self.finished(seconds)
        await self.stop()
        return self.books.ledger.balance()

    async def finished(self, seconds: float = 60.0) -> None:
        """Wait until every group has finished all of its topics."""
        deadline = time.monotonic() + seconds
        while left := await self.unfinished():
            assert time.monotonic() < deadline, f"still to be read: {left}\n{self.said()}"
            await asyncio.sleep(0.2)

    async def routed(self) -> None:
        """Wait until all that was accepted has reached the sender's topics."""
        while any(name.startswith(("signing", "routing signed")) for name in await self.unfinished()):  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.2)

    async def unfinished(self) -> dict[str, int]:
        """By group and topic: how many records lie beyond the group's watermark, or were never committed."""
        async with self._asking() as (admin, consumer):
            left = {}
            for group, names in _readers(self.config).items():
                for name in names:
                    parts = self.parts(name)
                    ends = await consumer.end_offsets(parts)
                    done = await admin.list_consumer_group_offsets(self.prefix + group, partitions=parts)
                    count = sum(end - max(0, done[part].offset) for part, end in ends.items())
                    if count:
                        left[f"{group} {name}"] = count
            return left

    async def goes_on(self, group: str, seconds: float = 60.0) -> None:
        """Wait until a group has committed something since this was called: under load, until its members have work."""
        parts = [part for name in _readers(self.config)[group] for part in self.parts(name)]
        deadline = time.monotonic() + seconds
        async with self._asking() as (admin, _):
            before = await admin.list_consumer_group_offsets(self.prefix + group, partitions=parts)
            while await admin.list_consumer_group_offsets(self.prefix + group, partitions=parts) == before:
                assert time.monotonic() < deadline, f"{group} has committed nothing\n{self.said()}"
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
        """Clients with which the brokers are asked."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await admin.start()
        await consumer.start()
        try:
            yield admin, consumer
        finally:
            await consumer.stop()
            await admin.close()

    def parts(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic, which is named without the prefix."""
        return [TopicPartition(self.prefix + topic, number) for number in range(self._partitions(topic))]

    def _partitions(self, topic: str) -> int:
        kafka = self.config.log.kafka
        assert kafka is not None
        return kafka.topic_partitions.get(topics.owner_of(topic), kafka.partitions)

    async def close(self) -> None:
        """End everything."""
        for member in self.members.values():
            await member.kill()
        for receiver in self.receivers.values():
            await receiver.stop()

    def said(self) -> str:
        """The end of what each service printed."""
        return "\n".join(member.said() for member in self.members.values())


@asynccontextmanager
async def kafka_world(
    bootstrap: str,
    prefix: str,
    *,
    brokers: int = 1,
    behaviour: Callable[[], Behaviour] = Behaviour,
    overrides: Mapping[str, Any] | None = None,
    kafka: Mapping[str, Any] | None = None,
) -> AsyncIterator[KafkaWorld]:
    """A world with its topics made, ready for `start`.

    Args:
        prefix: what its topics' names begin with.
        brokers: with three, records are stored on three and acknowledged by two.
        behaviour: of each receiver.
        overrides: sections of the configuration.
        kafka: fields of `log.kafka`.
    """
    described = {
        "bootstrap_servers": bootstrap.split(","),
        "topic_prefix": prefix,
        "partitions": 3,
        "replication_factor": min(brokers, 3),
        "min_insync_replicas": 2 if brokers >= 3 else 1,
        "session_timeout_seconds": 6,
        "rebalance_timeout_seconds": 15,
        **(kafka or {}),
    }
    with daemon_folder("kafka-world") as folder:
        dns = DnsServer()
        await dns.start()
        books = Books()
        receivers = await receivers_of(dns, books, behaviour)
        system = System(folder, dns, next(iter(receivers.values())).port, submission_port=free_port())
        system.overrides = configuration(
            folder,
            system.submission_port,
            {
                "routing": {"groups": [GROUP]},
                "health": {"port": 0},
                "logging": {"file": None},
                **(overrides or {}),
                "log": {"kind": "kafka", "kafka": described, **(overrides or {}).get("log", {})},
            },
        )
        system.write()
        injector = Injector(system.submission_port, books.ledger, DOMAINS)
        world = KafkaWorld(system, receivers, books, injector, bootstrap)
        try:
            await world.apply_topics()
            yield world
        finally:
            await world.close()
            await dns.stop()


def _readers(config: Config) -> dict[str, list[str]]:
    """The topics of each group."""
    tiers = map(topics.deferred, config.delivery.retry.tiers_seconds)
    senders = {
        f"sender.{pool}.{group}": list(topics.lanes(topics.outbound(pool, group)))
        for pool in config.pools
        for group in config.routing.groups
    }
    return {
        "signing": [*topics.lanes(topics.ACCEPTED), topics.ASIDE],
        "routing": [*topics.lanes(topics.SIGNED), *topics.lanes(topics.DUE)],
        "scheduler": list(tiers),
        **senders,
    }


def _ready(member: Member) -> bool:
    assert member.runs, f"it ended at its start\n{member.said()}"
    return member.is_ready()


def _event(line: str) -> str:
    with contextlib.suppress(json.JSONDecodeError):
        row = json.loads(line)
        return str(row.get("event", "")) if isinstance(row, dict) else ""
    return ""
