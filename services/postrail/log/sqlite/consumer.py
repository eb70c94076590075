"""Consumers and their groups: who reads which partition, and in which order records of several topics are handed out.

Owns assignment (eager, among the members of this process). The share of later topics is `shares`'s. Records come from the
cursors of `partition`; what a group has finished is the log's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from postrail.log.interface import LogUnavailable, Rebalance, Record, TopicPartition
from postrail.log.shares import Shares
from postrail.log.sqlite.partition import Cursor

if TYPE_CHECKING:
    from postrail.log.sqlite.log import SqliteLog


class SqliteConsumer:
    """One member of a group."""

    def __init__(
        self,
        log: SqliteLog,
        group: Membership,
        topics: Sequence[str],
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
    ) -> None:
        self._log = log
        self._group = group
        self.topics = tuple(dict.fromkeys(topics))
        self.on_assigned = on_assigned
        self.on_revoked = on_revoked
        self._cursors: dict[str, list[Cursor]] = {topic: [] for topic in self.topics}
        self._shares = Shares(self.topics)
        self._paused: set[TopicPartition] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def assigned(self) -> Sequence[TopicPartition]:
        """The partitions that this member reads now."""
        return [cursor.partition.where for cursors in self._cursors.values() for cursor in cursors]

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """As `Consumer.poll`."""
        loop = self._log.loop
        deadline = loop.time() + timeout_seconds
        while True:
            self._log.check_open()
            if self._closed:
                raise LogUnavailable("this consumer has left its group")
            records = self._take(max_records)
            remaining = deadline - loop.time()
            if records or remaining <= 0:
                return records
            await self._wait(loop, remaining)

    async def _wait(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self.wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def wake(self) -> None:
        """Let a waiting poll look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self, max_records: int) -> list[Record]:
        ready = [topic for topic, cursors in self._cursors.items() if any(cursor.ready() for cursor in cursors)]
        return self._shares.take(ready, max_records, self._take_topic)

    def _take_topic(self, topic: str, limit: int) -> list[Record]:
        cursors = self._cursors[topic]
        if len(cursors) == 1:
            return self._log.take(cursors[0], limit) if cursors[0].ready() else []
        taken: list[Record] = []
        for cursor in list(cursors):
            if len(taken) >= limit:
                break
            if cursor.ready():
                taken += self._log.take(cursor, limit - len(taken))
                cursors.remove(cursor)  # it comes last next time
                cursors.append(cursor)
        return taken

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Poll nothing from these until resumed."""
        self._paused.update(partitions)
        self._apply_paused()

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Poll from these again."""
        self._paused.difference_update(partitions)
        self._apply_paused()
        self.wake()

    def _apply_paused(self) -> None:
        for cursors in self._cursors.values():
            for cursor in cursors:
                cursor.paused = cursor.partition.where in self._paused

    def lag(self) -> int:
        """Records of the assigned partitions that this consumer has not yet polled."""
        return sum(cursor.lag() for cursors in self._cursors.values() for cursor in cursors)

    def lease_seconds(self) -> float:
        """Endless: the file's lock makes this process the only one that reads."""
        return math.inf

    async def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            await self._group.leave(self)
            self._closed = True
            self._log.left(self)
            self.wake()

    async def revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing more of these, then let the owner finish with them."""
        gone = frozenset(partitions)
        for topic, cursors in self._cursors.items():
            for cursor in cursors:
                if cursor.partition.where in gone:
                    cursor.drop()
            self._cursors[topic] = [cursor for cursor in cursors if cursor.partition.where not in gone]
        self._paused -= gone
        if self.on_revoked is not None:
            await self.on_revoked(list(partitions))

    async def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Start reading these at what the group has finished."""
        for where in partitions:
            self._cursors[where.topic].append(self._log.cursor(self._group.name, where, self.wake))
        if self.on_assigned is not None:
            await self.on_assigned(list(partitions))
        self.wake()


class Membership:
    """The members of one group in this process."""

    def __init__(self, log: SqliteLog, name: str) -> None:
        self._log = log
        self.name = name
        self._members: list[SqliteConsumer] = []
        self._changing = asyncio.Lock()

    async def join(self, member: SqliteConsumer) -> None:
        """Take a member in and give it its part."""
        async with self._changing:
            self._members.append(member)
            await self._rebalance(())

    async def leave(self, member: SqliteConsumer) -> None:
        """Revoke all that a member has, and share it among the others."""
        async with self._changing:
            if member in self._members:
                self._members.remove(member)
                await self._rebalance((member,))

    async def _rebalance(self, leaving: Sequence[SqliteConsumer]) -> None:
        target = self._shares()
        for member in (*leaving, *self._members):
            keep = target.get(member, ())
            lost = [where for where in member.assigned if where not in keep]
            if lost:
                await member.revoke(lost)
        for member in self._members:
            has = frozenset(member.assigned)
            gained = [where for where in target[member] if where not in has]
            if gained:
                await member.assign(gained)

    def _shares(self) -> dict[SqliteConsumer, list[TopicPartition]]:
        shares: dict[SqliteConsumer, list[TopicPartition]] = {member: [] for member in self._members}
        for topic in dict.fromkeys(topic for member in self._members for topic in member.topics):
            readers = [member for member in self._members if topic in member.topics]
            for index, partition in enumerate(self._log.partitions(topic)):
                shares[readers[index % len(readers)]].append(partition)
        return shares
