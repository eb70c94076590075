"""A log in memory, for tests of what stands on `postrail.log.interface`: one partition a topic, no groups of several members.

Owns nothing durable. `fail_next` makes the next stores fail, as a full disk would; `stores` counts the stores that worked.
`is_atomic`, `shares_bodies`, `lease_seconds` and `trouble` can be set, for tests of what depends on them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from postrail.log.interface import (
    Append,
    Body,
    Commit,
    LogUnavailable,
    Position,
    Rebalance,
    Record,
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
    def __init__(self, log: MemoryLog, topics: Sequence[str], group: str, on_revoked: Rebalance | None) -> None:
        self._log = log
        self._topics = topics
        self._on_revoked = on_revoked
        self._paused: set[TopicPartition] = set()
        self.assigned = [TopicPartition(topic, 0) for topic in topics]
        self._begin = {name: log.progress.get((group, name), Progress(0)) for name in self.assigned}
        self._next = {name: progress.low for name, progress in self._begin.items()}

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        if not (found := self._read(max_records)):
            self._log.appended.clear()
            try:
                await asyncio.wait_for(self._log.appended.wait(), timeout_seconds)
            except TimeoutError:
                return []
            found = self._read(max_records)
        return found

    def _read(self, max_records: int) -> list[Record]:
        found: list[Record] = []
        for name in self.assigned:
            while name not in self._paused and len(found) < max_records:
                stored = self._log.topics.get(name.topic, [])
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
        return sum(len(self._log.topics.get(name.topic, [])) - self._next[name] for name in self.assigned)

    def lease_seconds(self) -> float:
        return self._log.lease_seconds

    async def close(self) -> None:
        if self._on_revoked is not None:
            await self._on_revoked(self.assigned)


class MemoryLog:
    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.progress: dict[tuple[str, TopicPartition], Progress] = {}
        self.consumers: list[MemoryConsumer] = []
        self.appended = asyncio.Event()
        self.fail_next: list[Exception] = []
        self.stores = 0
        self.closed = False
        self.is_atomic = True
        self.shares_bodies = True
        self.lease_seconds = math.inf
        self.trouble: str | None = None

    def problem(self) -> str | None:
        return self.trouble

    async def tail(self, topic: str, partition: int, *, newest: int, since: int | None = None) -> list[Record]:
        stored = self.topics.get(topic, []) if partition == 0 else []
        first = len(stored) - newest if since is None else min(since, len(stored) - newest)
        return stored[max(0, first) :]

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        await asyncio.sleep(0)
        return self._store(appends, ())

    async def transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        await asyncio.sleep(0)
        self._store(appends, commits)

    def _store(self, appends: Sequence[Append], commits: Sequence[Commit]) -> list[Position]:
        if self.closed:
            raise LogUnavailable("closed")
        if self.fail_next:
            raise self.fail_next.pop(0)
        positions = []
        for topic, key, value, body, _ in appends:
            stored = self.topics.setdefault(topic, [])
            kept: Body | None = MemoryBody(body) if isinstance(body, bytes) else body
            stored.append(Record(topic, 0, len(stored), key, value, kept, time.time()))
            positions.append(Position(topic, 0, len(stored) - 1))
        for commit in commits:
            self.progress[commit.group, commit.partition] = commit.progress
        self.stores += 1
        self.appended.set()
        return positions

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> MemoryConsumer:
        consumer = MemoryConsumer(self, topics, group, on_revoked)
        self.consumers.append(consumer)
        if on_assigned is not None:
            await on_assigned(consumer.assigned)
        return consumer

    def topic_names(self) -> Collection[str]:
        return self.topics.keys()

    async def committed(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, Progress]:
        return {
            name: progress for (of, name), progress in self.progress.items() if of == group and name.topic in topics
        }

    async def close(self) -> None:
        self.closed = True
