"""Reads the outbound topics of one pool and destination group, and keeps what is taken up within bounds.

Owns the consumer, the trackers of its partitions and the count of what it holds. `service` decides what becomes of a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from postrail.core.topics import lanes, outbound
from postrail.log.interface import Consumer, Log, LogError, Record, TopicPartition
from postrail.log.progress import STOP_FETCHING_AT_BYTES, Progress, Tracker
from postrail.sender.job import Job, Partition
from postrail.shell import logs

LOG = logs.logger("sender")

MAX_POLL = 200
POLL_SECONDS = 1.0
RETRY_SECONDS = 1.0
MAX_SPREAD = STOP_FETCHING_AT_BYTES * 3 // 4 * 8
"""Distance from the oldest unfinished record to the newest, so that a commit's metadata always fits (a bit a record)."""


class Intake:
    """One consumer.

    Args:
        room: how many records may be taken up now.
        take: what becomes of records; called with those of one poll.
    """

    def __init__(
        self,
        log: Log,
        pool: str,
        group: str,
        room: Callable[[Intake], int],
        take: Callable[[Intake, Sequence[Record]], None],
    ) -> None:
        self.pool = pool
        self.group = group
        self.name = f"sender.{pool}.{group}"
        self.partitions: dict[TopicPartition, Partition] = {}
        self.held = 0
        self.has_room = asyncio.Event()
        self.problem: str | None = None
        self._log = log
        self._room = room
        self._take = take
        self._topics = lanes(outbound(pool, group))
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Join the group and begin to read; raises LogError."""
        self._consumer = await self._log.consumer(
            self._topics, self.name, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._task = asyncio.create_task(self._run(self._consumer), name=self.name)

    async def stop_reading(self) -> None:
        """Take up nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            await self._consumer.close()

    def lag(self) -> int:
        """Records that wait in the log."""
        return self._consumer.lag() if self._consumer is not None else 0

    def partition(self, record: Record) -> Partition:
        """Where the record comes from; its tracker has started the record."""
        name = TopicPartition(record.topic, record.partition)
        partition = self.partitions.get(name)
        if partition is None:
            partition = self.partitions[name] = Partition(self.name, name, Tracker(record.offset))
        partition.tracker.start(record.offset)
        return partition

    def laggards(self) -> Iterator[Job]:
        """Waiting jobs that hold back a partition's watermark so far that no more could be read."""
        for partition in self.partitions.values():
            if partition.tracker.spread > MAX_SPREAD:
                oldest = next(iter(partition.jobs.values()), None)
                if oldest is not None and oldest.queued:
                    yield oldest

    def is_spread_out(self) -> bool:
        """Whether a partition's finished records lie too far apart to commit more of them."""
        return any(partition.tracker.spread > MAX_SPREAD for partition in self.partitions.values())

    async def _run(self, consumer: Consumer) -> None:
        while True:
            room = self._room(self)
            if room <= 0:
                self.has_room.clear()
                await self.has_room.wait()
                continue
            try:
                records = await consumer.poll(min(room, MAX_POLL), POLL_SECONDS)
            except LogError as error:
                self.problem = f"{self.name} cannot read: {error}"
                LOG.warning("read-failed", group=self.name, reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception as error:
                self.problem = f"{self.name} cannot read: {error!r}"
                LOG.exception("read-failed", group=self.name)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.problem = None
            if records:
                self._take(self, records)

    async def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        committed = await self._log.committed(self.name, self._topics)
        for name in partitions:
            progress = committed.get(name, Progress(0))
            self.partitions[name] = Partition(self.name, name, Tracker(progress.low, progress.above))

    async def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        for name in partitions:
            self.partitions.pop(name, None)
