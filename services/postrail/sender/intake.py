"""Reads the outbound topics of one pool and destination group, and keeps what is taken up within bounds.

Owns the consumer, the trackers of its partitions and the count of what it holds. A new owner of a partition learns here what is
finished of it: from the last commit, and, where that may lag behind, from the tail of the outcomes topic. `service` decides
what becomes of a record; `handover` what becomes of those that are under way when partitions come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from postrail.core.records import Finished
from postrail.core.topics import lanes, outbound, outcomes
from postrail.log.interface import Consumer, Log, LogError, Record, TopicPartition
from postrail.log.progress import STOP_FETCHING_AT_BYTES, Progress, Tracker
from postrail.sender.job import Job, Ownership, Partition
from postrail.sender.repeats import Repeats
from postrail.shell import logs
from postrail.shell.assignment import asked, committed
from postrail.wire import codec

LOG = logs.logger("sender")

MAX_POLL = 200
POLL_SECONDS = 1.0
RETRY_SECONDS = 1.0
MAX_SPREAD = STOP_FETCHING_AT_BYTES * 3 // 4 * 8
"""Distance from the oldest unfinished record to the newest, so that a commit's metadata always fits (a bit a record)."""
LAGGARDS = 5 * MAX_POLL
"""So many of the oldest waiting jobs make room for more when a partition's finished records lie too far apart."""
TAIL_RECORDS = 2000
"""So many of the newest outcomes a new owner reads: each tells of up to a transaction's deliveries."""

CLOCK_SLACK_SECONDS = 60.0
"""By how much the log's clock may differ from ours."""


class Owner(Protocol):
    """What an intake needs from the service: Unix time, and what follows."""

    clock: Callable[[], float]

    def room(self, intake: Intake) -> int:
        """How many records may be taken up now."""
        ...

    def take(self, intake: Intake, records: Sequence[Record]) -> None:
        """Decide what becomes of the records of one poll."""
        ...

    def names_not_durable(self, partition: TopicPartition) -> Sequence[str]:
        """Hand-overs of a partition whose outcome is known to this process only."""
        ...

    async def give_up(self, intake: Intake, partitions: Sequence[Partition]) -> None:
        """Finish or forget all that is under way of these partitions."""
        ...

    def take_over(self, partitions: Sequence[Partition]) -> None:
        """These partitions are ours from now on."""
        ...


class Intake:
    """One consumer.

    Attributes:
        held: records that were taken up and whose outcome is not durable.
        taken: records that were taken up since the start, those left out that went to another process.
    """

    def __init__(self, log: Log, pool: str, group: str, owner: Owner) -> None:
        self.pool = pool
        self.group = group
        self.name = f"sender.{pool}.{group}"
        self.partitions: dict[TopicPartition, Partition] = {}
        self.held = 0
        self.taken = 0
        self.has_room = asyncio.Event()
        self.problem: str | None = None
        self._log = log
        self._owner = owner
        self._topics = lanes(outbound(pool, group))
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Join the group and begin to read; raises LogError."""
        self._consumer = await self._log.consumer(
            self._topics, self.name, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._task = asyncio.create_task(self._run(self._consumer), name=self.name)

    async def stop_reading(self) -> None:
        """Take up nothing more."""
        self._stopping = True
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

    def lease_seconds(self) -> float:
        """For how long this process may still act as the owner of its partitions."""
        return self._consumer.lease_seconds() if self._consumer is not None else float("inf")

    def partition(self, record: Record) -> Partition | None:
        """Where the record comes from; its tracker has started the record. None: it is somebody else's by now."""
        partition = self.partitions.get(TopicPartition(record.topic, record.partition))
        if partition is not None:
            partition.tracker.start(record.offset)
            if partition.ownership is not None:
                partition.ownership.key = record.key
        return partition

    def laggards(self) -> Iterator[Job]:
        """The oldest waiting jobs of each partition whose watermark they hold back so far that no more could be read.

        Several polls' worth at a time: one by one, each would let one more record be read for a write to the log. None while the
        oldest of all is being sent, or parked.
        """
        for partition in self.partitions.values():
            jobs = partition.jobs.values()
            if (
                partition.tracker.spread > MAX_SPREAD
                and (oldest := next(iter(jobs), None)) is not None
                and oldest.queued
            ):
                yield from islice((job for job in jobs if job.queued), LAGGARDS)

    def is_spread_out(self) -> bool:
        """Whether a partition's finished records lie too far apart to commit more of them."""
        return any(partition.tracker.spread > MAX_SPREAD for partition in self.partitions.values())

    async def _run(self, consumer: Consumer) -> None:
        while not self._stopping:
            room = self._owner.room(self)
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
                self.taken += len(records)
                self._owner.take(self, records)

    # partitions come and go

    async def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        found = await committed(self._log, self.name, partitions)
        told: list[Finished] = []
        known_here: dict[TopicPartition, Sequence[str]] = {}
        if not self._log.is_atomic:
            # before the tail is read: what becomes durable meanwhile may not be in it
            known_here = {name: self._owner.names_not_durable(name) for name in partitions}
            never = {name.partition for name, progress in found.items() if progress is None}
            numbers = sorted({name.partition for name in partitions})
            tails = await asyncio.gather(*(self._tail(number, everything=number in never) for number in numbers))
            told = [finished for tail in tails for finished in tail]
        for name in partitions:
            progress = found[name] or Progress(0)
            self.partitions[name] = Partition(self.name, name, Tracker(progress.low, progress.above))
            if not self._log.is_atomic:
                self.partitions[name].ownership = self._ownership(name, told, known_here[name])
        self._owner.take_over([self.partitions[name] for name in partitions])

    async def _tail(self, number: int, *, everything: bool) -> list[Finished]:
        """What the outcomes topic tells of the partitions of this number; all of it where nothing was ever committed."""
        topic, since = outcomes(self.pool, self.group), 0 if everything else None
        records = await asked(lambda: self._log.tail(topic, number, newest=TAIL_RECORDS, since=since), self.name)
        found = []
        for record in records:
            try:
                found.append(codec.decode_finished(record.value))
            except codec.UndecodableRecord as error:
                LOG.error("outcome-unreadable", topic=topic, partition=number, offset=record.offset, reason=str(error))
        return found

    def _ownership(self, name: TopicPartition, told: Sequence[Finished], known_here: Sequence[str]) -> Ownership:
        mine = [finished for finished in told if (finished.topic, finished.partition) == name]
        offsets = [offset for finished in mine for offset in finished.offsets]
        names = [named for finished in mine for named in finished.names if named]
        repeats = Repeats(offsets, [*names, *known_here, *self._owner.names_not_durable(name)])
        inherited_before = self._owner.clock() + CLOCK_SLACK_SECONDS
        return Ownership(asyncio.get_running_loop().time(), inherited_before, self.lease_seconds, repeats)

    async def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        gone = [self.partitions.pop(name) for name in partitions if name in self.partitions]
        await self._owner.give_up(self, gone)
