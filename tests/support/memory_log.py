"""A log in memory, for tests of what stands on `postrail.log.interface`.

A `MemoryLog` is one process's view of a `MemoryCluster`; several of them share its topics and groups, as processes share Kafka.
Groups rebalance eagerly: when a member comes or goes, all give up all, then each gets its range. Owns nothing durable.

`fail_next` makes the next stores fail, as a full disk would; `stores` counts the stores that worked. `is_atomic`,
`shares_bodies`, `lease_seconds`, `max_bytes` (of a record's value) and `trouble` can be set. `crash` is the end of the
process: nothing of it is heard again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from postrail.log.interface import (
    Append,
    Body,
    Commit,
    LogUnavailable,
    Position,
    Rebalance,
    Record,
    RecordTooLarge,
    TopicPartition,
)
from postrail.log.progress import Progress


@dataclass(frozen=True)
class MemoryBody:
    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def in_memory(self) -> bytes | None:
        return self.data

    async def load(self) -> bytes:
        return self.data


class MemoryConsumer:
    def __init__(
        self,
        log: MemoryLog,
        topics: Sequence[str],
        group: str,
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
    ) -> None:
        self._log = log
        self._cluster = log.cluster
        self.topics = topics
        self.group = group
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._paused: set[TopicPartition] = set()
        self.left = False
        self.assigned: list[TopicPartition] = []
        self._begin: dict[TopicPartition, Progress] = {}
        self._next: dict[TopicPartition, int] = {}

    async def give_up(self) -> None:
        given = list(self.assigned)
        if given and self._on_revoked is not None:
            await self._on_revoked(given)
        self.forget()

    def forget(self) -> None:
        self.assigned = []
        self._paused.clear()

    async def get(self, partitions: Sequence[TopicPartition]) -> None:
        self._begin = {name: self._cluster.progress.get((self.group, name), Progress(0)) for name in partitions}
        self._next = {name: progress.low for name, progress in self._begin.items()}
        if self._on_assigned is not None:
            await self._on_assigned(partitions)
        self.assigned = list(partitions)

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        self._log.check_open()
        if not (found := self._read(max_records)):
            self._cluster.appended.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._cluster.appended.wait()
            except TimeoutError:
                return []
            found = self._read(max_records)
        return found

    def _read(self, max_records: int) -> list[Record]:
        found: list[Record] = []
        for name in self.assigned:
            while name not in self._paused and len(found) < max_records:
                stored = self._cluster.partitions.get(name, [])
                if self._next[name] >= len(stored):
                    break
                record = stored[self._next[name]]
                self._next[name] += 1
                if not self._begin[name].includes(record.offset):
                    found.append(record)
        return found

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    @property
    def paused(self) -> Sequence[TopicPartition]:
        return sorted(self._paused)

    def lag(self) -> int:
        return sum(len(self._cluster.partitions.get(name, [])) - self._next[name] for name in self.assigned)

    def lease_seconds(self) -> float:
        return self._log.lease_seconds

    async def close(self) -> None:
        if self.left:
            return
        self.left = True
        await self.give_up()
        self._cluster.members[self.group].remove(self)
        await self._cluster.rebalance(self.group)


class MemoryCluster:
    """What several processes share.

    Attributes:
        topics: every record of a topic, in the order of appending, whatever its partition.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.count = partitions
        self.topics: dict[str, list[Record]] = {}
        self.partitions: dict[TopicPartition, list[Record]] = {}
        self.progress: dict[tuple[str, TopicPartition], Progress] = {}
        self.members: dict[str, list[MemoryConsumer]] = {}
        self.appended = asyncio.Event()
        self._rebalancing = asyncio.Lock()

    async def rebalance(self, group: str) -> None:
        """All members give up all that they have; then each gets its range of every topic."""
        async with self._rebalancing:
            members = self.members.get(group, [])
            await asyncio.gather(*(member.give_up() for member in members))
            await asyncio.gather(*(member.get(self._range(member, members)) for member in members))
            self.appended.set()

    def _range(self, member: MemoryConsumer, members: Sequence[MemoryConsumer]) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        for topic in member.topics:
            readers = [other for other in members if topic in other.topics]
            place = readers.index(member)
            first, end = (self.count * at // len(readers) for at in (place, place + 1))
            found += [TopicPartition(topic, number) for number in range(first, end)]
        return found

    def store(self, append: Append) -> Position:
        """One record at the end of its key's partition."""
        name = TopicPartition(append.topic, crc32(append.key) % self.count)
        stored = self.partitions.setdefault(name, [])
        body: Body | None = MemoryBody(append.body) if isinstance(append.body, bytes) else append.body
        record = Record(name.topic, name.partition, len(stored), append.key, append.value, body, time.time())
        stored.append(record)
        self.topics.setdefault(name.topic, []).append(record)
        self.appended.set()
        return Position(name.topic, name.partition, record.offset)


class MemoryLog:
    def __init__(self, cluster: MemoryCluster | None = None) -> None:
        self.cluster = cluster or MemoryCluster()
        self.consumers: list[MemoryConsumer] = []
        self.fail_next: list[Exception] = []
        self.stores = 0
        self.closed = False
        self.is_atomic = True
        self.shares_bodies = True
        self.lease_seconds = math.inf
        self.max_bytes = math.inf
        self.trouble: str | None = None

    @property
    def topics(self) -> dict[str, list[Record]]:
        return self.cluster.topics

    @property
    def progress(self) -> dict[tuple[str, TopicPartition], Progress]:
        return self.cluster.progress

    def problem(self) -> str | None:
        return self.trouble

    def check_open(self) -> None:
        if self.closed:
            raise LogUnavailable("closed")

    async def crash(self) -> None:
        """End without a word; the others get what this process had."""
        self.closed = True
        for consumer in self.consumers:
            consumer.left = True
            consumer.forget()
            if consumer in self.cluster.members[consumer.group]:
                self.cluster.members[consumer.group].remove(consumer)
        for group in {consumer.group for consumer in self.consumers}:
            await self.cluster.rebalance(group)

    async def tail(self, topic: str, partition: int, *, newest: int, since: int | None = None) -> list[Record]:
        stored = self.cluster.partitions.get(TopicPartition(topic, partition), [])
        first = len(stored) - newest if since is None else min(since, len(stored) - newest)
        return stored[max(0, first) :]

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        await asyncio.sleep(0)
        return self._store(appends, ())

    async def transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        await asyncio.sleep(0)
        self._store(appends, commits)

    def _store(self, appends: Sequence[Append], commits: Sequence[Commit]) -> list[Position]:
        self.check_open()
        if self.fail_next:
            raise self.fail_next.pop(0)
        large = {place for place, append in enumerate(appends) if len(append.value) > self.max_bytes}
        positions = [self.cluster.store(append) for place, append in enumerate(appends) if place not in large]
        if large:
            raise RecordTooLarge("larger than max_bytes", large)
        for commit in commits:
            self.progress[commit.group, commit.partition] = commit.progress
        self.stores += 1
        return positions

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> MemoryConsumer:
        consumer = MemoryConsumer(self, topics, group, on_assigned, on_revoked)
        self.consumers.append(consumer)
        self.cluster.members.setdefault(group, []).append(consumer)
        await self.cluster.rebalance(group)
        return consumer

    def topic_names(self) -> Collection[str]:
        return self.topics.keys()

    async def committed(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, Progress]:
        return {
            name: progress for (of, name), progress in self.progress.items() if of == group and name.topic in topics
        }

    async def close(self) -> None:
        self.closed = True
