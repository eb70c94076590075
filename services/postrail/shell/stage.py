"""The loop of a stage: take up records, work, append the outputs and commit the inputs in one transaction.

Owns the order of those steps, retries, back-pressure, poison and records that are kept back; signing, routing and others
hand it a `handle` and nothing else. Never drops a record and never commits one before its outputs are durable. Neighbours:
`stage_commits` (makes the outcomes durable), `stage_state` (what both hold), `postrail.log.interface` (what is read and written).

Two tasks: one polls and handles, one commits. While a transaction is under way the next batch is handled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from prometheus_client import Counter, Gauge

from postrail.log.interface import (
    Append,
    Consumer,
    LogError,
    Record,
    TopicPartition,
)
from postrail.log.progress import SAFE_SPREAD, Progress, Tracker
from postrail.shell import logs
from postrail.shell.assignment import committed
from postrail.shell.context import Context
from postrail.shell.dead_letters import dead_letter
from postrail.shell.stage_commits import Commits
from postrail.shell.stage_state import (
    DRAIN_SECONDS,
    Health,
    KeptBack,
    Outcome,
    Partition,
    traceback_of,
)
from postrail.shell.storing import LOG_RETRY_SECONDS

LOG = logs.logger("stage")

# stage: the stage's name. Alert on any increase: a message waits for a person in the topic dead-letters.
DEAD_LETTERS = Counter("postrail_stage_dead_letters_total", "Records that could not be processed.", ["stage"])
# stage: the stage's name. Alert on a steep increase; the log has the traceback.
ERRORS = Counter("postrail_stage_errors_total", "Unexpected errors while a record was handled.", ["stage"])
# stage: the stage's name. Alert when it stays above zero: the log names what the records wait for.
KEPT_BACK = Gauge("postrail_stage_kept_back_records", "Records that wait for something and are tried again.", ["stage"])

Handle = Callable[[Record], Awaitable[Sequence[Append]] | Sequence[Append]]

POLL_SECONDS = 0.5
SLICE_SECONDS = 0.003
"""Handling gives way to the rest of the process after this long."""
POISON_DELAYS_SECONDS = (0.2, 2.0)
"""Before the second and the third try; after the last one the record is a dead letter."""
NO_PROGRESS_SECONDS = 60.0
ASIDE_SPREAD = SAFE_SPREAD // 2
"""Beyond this spread what is not ready is set aside, so that the commits of its partition never become too long."""
QUIET_SECONDS = 60.0
"""The same reason for keeping records back is logged once in this time."""


class NotReady(Exception):
    """The record cannot be handled now, through no fault of its own: keep it back and try again after the delay."""

    def __init__(self, delay_seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.delay_seconds = delay_seconds
        self.reason = reason


class Stage:
    """Consume, handle, produce and commit for one group on some topics.

    Args:
        name: the stage, for logs, metrics and dead letters.
        topics: in order of preference.
        group: the reader group.
        handle: gives the outputs of one record. A list or tuple is taken as it is, at once; an awaitable runs beside the
            others, and a slow one delays nobody. It may be called twice for a record, but only what the last call
            returned is appended. It raises NotReady to be asked later; any other exception counts towards poison,
            except a LogError, which is tried again for ever.
        batch: how many records are polled at a time, and about how many a transaction holds.
        in_flight: how many awaitables run at a time.
        kept_back: how many records may wait for a later try; beyond that nothing new is polled.
        aside: the topic to which records that are not ready go when half of `kept_back` wait in memory, or when they hold
            back their partition's commits; `postrail.shell.stage_aside` reads it. None: they all wait in memory.
        poison_delays_seconds: the waits between the tries; one try more than there are waits.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        topics: Sequence[str],
        group: str,
        handle: Handle,
        *,
        batch: int = 200,
        in_flight: int = 1000,
        kept_back: int = 10_000,
        aside: str | None = None,
        poison_delays_seconds: Sequence[float] = POISON_DELAYS_SECONDS,
    ) -> None:
        self.name = name
        self._log = context.log
        self._clock = context.clock
        self._topics = tuple(topics)
        self._group = group
        self._handle = handle
        self._batch = batch
        self._max_in_flight = in_flight
        self._max_kept = kept_back
        self._aside = aside
        self._poison_delays = tuple(poison_delays_seconds)
        self._partitions: dict[TopicPartition, Partition] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._kept = KeptBack(KEPT_BACK.labels(name))
        self._health = Health(name)
        self._warned: dict[str, float] = {}
        self._draining = False
        self._room = asyncio.Event()
        self._commits = Commits(name, self._log, group, batch, self._kept, self._health, self._room)
        self._consumer: Consumer | None = None
        self._fetcher: asyncio.Task[None] | None = None
        self._dead_letters_metric = DEAD_LETTERS.labels(name)
        self._errors_metric = ERRORS.labels(name)

    # The service

    async def start(self) -> None:
        """Join the group and take up work."""
        self._health.goes_on()
        consumer = await self._log.consumer(
            self._topics, self._group, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._consumer = consumer
        self._fetcher = asyncio.create_task(self._fetch(consumer), name=f"{self.name}-fetch")
        self._commits.start(consumer)

    async def drain(self) -> None:
        """Stop polling, finish what is under way, commit it, leave the group. What is not finished is read again later."""
        self._draining = True
        if self._consumer is None or self._fetcher is None:
            return
        self._fetcher.cancel()
        await asyncio.wait([self._fetcher])
        self._kept.close()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            if late:
                LOG.warning("drained with records unfinished; they are read again", stage=self.name, records=len(late))
                await asyncio.wait(late)
        await self._commits.close()
        await self._consumer.close()

    def problem(self) -> str | None:
        """Why there is no progress; None when all is well or there is nothing to do."""
        if self._consumer is None or self._draining:
            return None
        if stopped := self.stopped():
            return stopped
        silent_seconds = time.monotonic() - self._health.progress_at
        waiting = self._consumer.lag() + self._commits.waiting
        if silent_seconds < NO_PROGRESS_SECONDS or not (waiting or self._commits.are_busy):
            return None
        reason = self._health.trouble or (
            f"{len(self._kept)} records are kept back; see the log" if self._kept else "unknown"
        )
        return f"{self.name}: no progress for {silent_seconds:.0f} s while {waiting} records wait: {reason}"

    def stopped(self) -> str | None:
        """Which of the stage's loops has ended, as none ever should before `drain`."""
        for task in (self._fetcher, self._commits.task):
            if task is not None and task.done() and not self._draining:
                return f"{self.name}: {task.get_name()} has stopped: {task.exception()!r}; restart the process"
        return None

    # Polling and handling

    async def _fetch(self, consumer: Consumer) -> None:
        delay = LOG_RETRY_SECONDS[0]
        while not self._draining:
            while self._is_full():
                self._room.clear()
                await self._room.wait()
            try:
                records = await consumer.poll(self._batch, POLL_SECONDS)
            except Exception as error:
                self._health.cannot("read from", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LOG_RETRY_SECONDS[1])
                continue
            delay = LOG_RETRY_SECONDS[0]
            if records:
                with self._commits.gathering():
                    await self._take_all(records)
            elif not self._commits.are_busy and not consumer.lag():
                self._health.goes_on()

    def _is_full(self) -> bool:
        return (
            self._commits.waiting >= self._batch
            or len(self._running) >= self._max_in_flight
            or len(self._kept) >= self._max_kept
        )

    async def _take_all(self, records: Iterable[Record]) -> None:
        slice_end = time.monotonic() + SLICE_SECONDS
        assigned = dict(self._partitions)  # now: a partition that goes and comes back while this gives way is another
        partition: Partition | None = None
        for record in records:
            if partition is None or partition.name != (record.topic, record.partition):
                partition = assigned.get(TopicPartition(record.topic, record.partition))
            if partition is None or partition.leaving:
                continue  # its next owner reads it
            partition.tracker.start(record.offset)
            self._take(partition, record, 1)
            if time.monotonic() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.monotonic() + SLICE_SECONDS

    def _take(self, partition: Partition, record: Record, tries: int) -> None:
        try:
            result = self._handle(record)
            if isinstance(result, (list, tuple)):
                self._settle(partition, record, result)
                return
        except Exception as error:  # any error of a handler is the record's, not the loop's
            self._failed(partition, record, tries, error)
            return
        task = asyncio.ensure_future(self._finish(partition, record, tries, result))  # type: ignore[arg-type]
        self._running.add(task)
        task.add_done_callback(self._finished)

    async def _finish(
        self, partition: Partition, record: Record, tries: int, result: Awaitable[Sequence[Append]]
    ) -> None:
        try:
            self._settle(partition, record, await result)
        except Exception as error:  # any error of a handler is the record's, not the loop's
            self._failed(partition, record, tries, error)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.set()

    def _settle(self, partition: Partition, record: Record, appends: Sequence[Append]) -> None:
        self._commits.add(Outcome(partition, record.offset, appends))

    # Failures

    def _failed(self, partition: Partition, record: Record, tries: int, error: Exception) -> None:
        """Decide what becomes of a record whose handling raised."""
        if isinstance(error, NotReady):
            self._warn(error.reason, error.delay_seconds)
            if self._aside is not None and self._is_crowded(partition):
                self._settle(partition, record, [set_aside(record, self._aside)])
            else:
                self._keep(partition, record, tries, error.delay_seconds)
        elif isinstance(error, LogError):
            self._warn(f"the log cannot be read: {error}", LOG_RETRY_SECONDS[1])
            self._keep(partition, record, tries, LOG_RETRY_SECONDS[1])
        else:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            final = tries > len(self._poison_delays)
            what = "record cannot be processed; moved to dead-letters" if final else "record failed; tried again"
            LOG.error(what, stage=self.name, tries=tries, **where, traceback=traceback_of(error))
            self._errors_metric.inc()
            if not final:
                self._keep(partition, record, tries + 1, self._poison_delays[tries - 1])
                return
            self._dead_letters_metric.inc()
            self._settle(partition, record, [dead_letter(record, self.name, error, tries, self._clock())])

    def _is_crowded(self, partition: Partition) -> bool:
        """Whether a record that is not ready should make room for others."""
        return len(self._kept) >= self._max_kept // 2 or partition.tracker.spread > ASIDE_SPREAD

    def _keep(self, partition: Partition, record: Record, tries: int, delay_seconds: float) -> None:
        if not partition.leaving:
            self._kept.keep(partition, delay_seconds, partial(self._again, partition, record, tries))

    def _again(self, partition: Partition, record: Record, tries: int) -> None:
        self._room.set()
        self._take(partition, record, tries)

    def _warn(self, reason: str, delay_seconds: float) -> None:
        now = time.monotonic()
        if now - self._warned.get(reason, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        if len(self._warned) > 1000:
            self._warned.clear()
        self._warned[reason] = now
        LOG.warning("records wait", stage=self.name, reason=reason, tried_again_after_seconds=delay_seconds)

    # Assignment

    async def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        found = await committed(self._log, self._group, partitions)
        for name in partitions:
            progress = found[name] or Progress(0)
            self._partitions[name] = Partition(name, Tracker(progress.low, progress.above))

    async def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Take up no more of them, commit what is finished; what is not, their next owner does again."""
        gone = [self._partitions.pop(name) for name in partitions if name in self._partitions]
        for partition in gone:
            partition.leaving = True
        self._kept.let_go(gone)
        await self._commits.settled()
        for partition in gone:
            partition.revoked = True
        self._room.set()


def set_aside(record: Record, topic: str) -> Append:
    """The same record in the topic of those that are not ready."""
    return Append(topic, record.key, record.value, record.body, record.decoded)
