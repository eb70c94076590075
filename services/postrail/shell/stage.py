"""The loop of a stage: take up records, work, append the outputs and commit the inputs in one transaction.

Owns the order of those steps, retries, back-pressure, poison and records that are kept back; signing, routing and others
hand it a `handle` and nothing else. Never drops a record and never commits one before its outputs are durable. Neighbours:
`postrail.log.interface` (what it reads and writes), `postrail.log.progress` (which offsets are finished).

Two tasks: one polls and handles, one commits. While a transaction is under way the next batch is handled; there is never
more than one transaction under way, so commits are in order. A transaction starts when a polled batch is handled, or for
what finishes later (awaitables, records kept back) as soon as the one before it is stored.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

from prometheus_client import Counter, Gauge, Histogram

from postrail.log.interface import (
    TOO_LARGE_RETRY_SECONDS,
    Append,
    Commit,
    Consumer,
    LogError,
    LogFull,
    LogUnavailable,
    Record,
    RecordTooLarge,
    TopicPartition,
)
from postrail.log.progress import STOP_FETCHING_AT_BYTES, Progress, Tracker
from postrail.shell import logs
from postrail.shell.assignment import committed
from postrail.shell.context import Context
from postrail.shell.dead_letters import dead_letter
from postrail.shell.stage_state import KeptBack, Outcome, Partition

LOG = logs.logger("stage")

# stage: the stage's name. Alert when it stays flat while the stage has lag.
RECORDS = Counter("postrail_stage_records_total", "Records whose outcome is committed.", ["stage"])
# stage: the stage's name. Alert when the 99th percentile exceeds a second: the disk is slow.
TRANSACTION = Histogram(
    "postrail_stage_transaction_seconds",
    "Time to store one batch's outputs and commit its inputs, retries included.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
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
LOG_RETRY_SECONDS = (0.05, 5.0)
"""First and longest wait before the log is tried again."""
NO_PROGRESS_SECONDS = 60.0
DRAIN_SECONDS = 10.0
SAFE_SPREAD = STOP_FETCHING_AT_BYTES * 6 - 256
"""Up to this spread the commit's metadata fits, whatever is finished: a bit a record, in base64."""
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
        self._outcomes: list[Outcome] = []
        self._running: set[asyncio.Task[None]] = set()
        self._kept = KeptBack(KEPT_BACK.labels(name))
        self._warned: dict[str, float] = {}
        self._handling = False
        self._committing = False
        self._draining = False
        self._closing = False
        self._trouble = ""
        self._progress_at = 0.0
        self._room = asyncio.Event()
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._consumer: Consumer | None = None
        self._fetcher: asyncio.Task[None] | None = None
        self._committer: asyncio.Task[None] | None = None
        self._records_metric = RECORDS.labels(name)
        self._transaction_metric = TRANSACTION.labels(name)
        self._dead_letters_metric = DEAD_LETTERS.labels(name)
        self._errors_metric = ERRORS.labels(name)

    # The service

    async def start(self) -> None:
        """Join the group and take up work."""
        self._progress_at = time.monotonic()
        consumer = await self._log.consumer(
            self._topics, self._group, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._consumer = consumer
        self._fetcher = asyncio.create_task(self._fetch(consumer), name=f"{self.name}-fetch")
        self._committer = asyncio.create_task(self._commit(consumer), name=f"{self.name}-commit")

    async def drain(self) -> None:
        """Stop polling, finish what is under way, commit it, leave the group. What is not finished is read again later."""
        self._draining = True
        if self._consumer is None or self._fetcher is None or self._committer is None:
            return
        self._fetcher.cancel()
        await asyncio.wait([self._fetcher])
        self._kept.let_go(self._partitions.values())
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            if late:
                LOG.warning("drained with records unfinished; they are read again", stage=self.name, records=len(late))
                await asyncio.wait(late)
        self._closing = True
        self._ready.set()
        await asyncio.wait([self._committer], timeout=DRAIN_SECONDS)
        if not self._committer.done():
            LOG.warning("drained without a last commit; records are read again", stage=self.name, reason=self._trouble)
            self._committer.cancel()
            await asyncio.wait([self._committer])
        await self._consumer.close()

    def problem(self) -> str | None:
        """Why there is no progress; None when all is well or there is nothing to do."""
        if self._consumer is None or self._draining:
            return None
        if stopped := self.stopped():
            return stopped
        silent_seconds = time.monotonic() - self._progress_at
        waiting = self._consumer.lag() + len(self._outcomes)
        if silent_seconds < NO_PROGRESS_SECONDS or not (waiting or self._committing):
            return None
        reason = self._trouble or (f"{len(self._kept)} records are kept back; see the log" if self._kept else "unknown")
        return f"{self.name}: no progress for {silent_seconds:.0f} s while {waiting} records wait: {reason}"

    def stopped(self) -> str | None:
        """Which of the stage's loops has ended, as none ever should before `drain`."""
        for task in (self._fetcher, self._committer):
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
                self._cannot("read from", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LOG_RETRY_SECONDS[1])
                continue
            delay = LOG_RETRY_SECONDS[0]
            if records:
                self._handling = True
                try:
                    await self._take_all(records)
                finally:
                    self._handling = False
                    if self._outcomes:
                        self._ready.set()
            elif not self._outcomes and not self._committing and not consumer.lag():
                self._progress_at = time.monotonic()

    def _is_full(self) -> bool:
        return (
            len(self._outcomes) >= self._batch
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
        self._ended(partition, record.offset, appends)

    def _ended(self, partition: Partition, offset: int, appends: Sequence[Append]) -> None:
        self._outcomes.append(Outcome(partition, offset, appends))
        if not self._handling or len(self._outcomes) >= self._batch:
            self._ready.set()

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
            LOG.error(what, stage=self.name, tries=tries, **where, traceback=_traceback(error))
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
        if not partition.leaving and not self._draining:
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

    # Committing

    async def _commit(self, consumer: Consumer) -> None:
        while True:
            if not self._outcomes or (self._handling and len(self._outcomes) < self._batch):
                if not self._outcomes:
                    self._idle.set()
                    if self._closing:
                        return
                self._ready.clear()
                await self._ready.wait()
                continue
            self._idle.clear()
            self._committing = True
            taken, self._outcomes = self._outcomes, []
            self._room.set()
            with self._transaction_metric.time():
                finished = await self._store(taken)
            self._records_metric.inc(len(finished))
            self._trouble = ""
            self._progress_at = time.monotonic()
            self._committing = False
            for partition in {outcome.partition for outcome in finished}:
                self._pause_or_resume(consumer, partition)

    async def _store(self, taken: Sequence[Outcome]) -> Sequence[Outcome]:
        """Store the outputs and commit what they finish; returns what is finished.

        On a log that is not atomic these are two steps, so that nothing is appended twice because a commit fails.
        """
        if not self._log.is_atomic:
            taken = await self._append(taken)
        touched: dict[Partition, None] = {}
        appends: list[Append] = []
        for partition, offset, outputs in taken:
            if not partition.revoked:
                partition.tracker.finish(offset)
                touched[partition] = None
                if self._log.is_atomic:
                    appends += outputs

        def transact() -> Awaitable[None]:
            owned = [partition for partition in touched if not partition.revoked]
            return self._log.transact(appends, [Commit(self._group, one.name, one.progress()) for one in owned])

        await self._until_taken(transact, touched)
        return taken

    async def _append(self, taken: Sequence[Outcome]) -> Sequence[Outcome]:
        """Append the outputs; returns those outcomes all of whose outputs are stored."""
        stored: list[Outcome] = []

        async def append() -> None:
            outcomes = [outcome for outcome in taken if not outcome.partition.revoked]
            outputs = [outcome.appends for outcome in outcomes]
            try:
                if any(outputs):
                    await self._log.append([append for group in outputs for append in group])
                stored.extend(outcomes)
            except RecordTooLarge as error:
                LOG.error(
                    "record kept back",
                    stage=self.name,
                    reason=str(error),
                    tried_again_after_seconds=TOO_LARGE_RETRY_SECONDS,
                )
                for outcome, left in zip(outcomes, error.left_of(outputs), strict=True):
                    if left:
                        self._keep_output(outcome, left)
                    else:
                        stored.append(outcome)

        await self._until_taken(append, [outcome.partition for outcome in taken])
        return stored

    def _keep_output(self, outcome: Outcome, left: Sequence[Append]) -> None:
        """The log does not take these outputs of a record, which stays unfinished."""
        partition, offset, _ = outcome
        if not partition.leaving and not self._draining:
            self._kept.keep(partition, TOO_LARGE_RETRY_SECONDS, partial(self._ended, partition, offset, left))

    async def _until_taken(self, store: Callable[[], Awaitable[None]], partitions: Collection[Partition]) -> None:
        """Store, again and again until the log takes it, or until others own all of it."""
        delay = LOG_RETRY_SECONDS[0]
        while any(not partition.revoked for partition in partitions):
            storing = store()
            try:
                await storing
            except Exception as error:
                self._cannot("write to", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LOG_RETRY_SECONDS[1])
            else:
                return

    def _cannot(self, verb: str, error: Exception) -> None:
        reason = f"cannot {verb} the log: {type(error).__name__}: {error}"
        if reason == self._trouble:
            return
        self._trouble = reason
        if isinstance(error, (LogFull, LogUnavailable)):
            LOG.warning("log unusable; tried again until it is", stage=self.name, reason=reason)
        else:
            LOG.error("log failed; tried again", stage=self.name, reason=reason, traceback=_traceback(error))

    def _pause_or_resume(self, consumer: Consumer, partition: Partition) -> None:
        if not partition.paused and partition.tracker.spread <= SAFE_SPREAD:
            return
        too_long = len(partition.progress().metadata()) > STOP_FETCHING_AT_BYTES
        if too_long == partition.paused or partition.revoked:
            return
        partition.paused = too_long
        if too_long:
            reason = "too many records are finished out of order"
            LOG.warning("stopped reading a partition", stage=self.name, topic=partition.name.topic, reason=reason)
            consumer.pause([partition.name])
        else:
            consumer.resume([partition.name])

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
        if self._committer is not None and not self._committer.done() and (self._outcomes or self._committing):
            self._idle.clear()
            waiting = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait([waiting], timeout=DRAIN_SECONDS)
            waiting.cancel()
        for partition in gone:
            partition.revoked = True
        self._room.set()


def set_aside(record: Record, topic: str) -> Append:
    """The same record in the topic of those that are not ready."""
    return Append(topic, record.key, record.value, record.body, record.decoded)


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
