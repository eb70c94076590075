"""One retry tier: reads its topic, and hands deliveries back to routing when their time has come.

Owns the loop: read ahead into a bounded window, wait, append what is due to the topic due and commit in one transaction.
Never drops a record: what was not committed is read again by whoever comes next. Decides nothing about mail. Neighbours:
`postrail.scheduler.window` (what is due), `postrail.core.retry` (which chose the tier and the time).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from itertools import count

from prometheus_client import Counter, Histogram

from postrail.core import topics
from postrail.log.interface import (
    TOO_LARGE_RETRY_SECONDS,
    Append,
    Commit,
    Consumer,
    Log,
    LogError,
    Record,
    TopicPartition,
)
from postrail.log.progress import SAFE_SPREAD, Progress, Tracker
from postrail.scheduler.membership import Membership, TierConsumer
from postrail.scheduler.window import Waiting, Window
from postrail.shell import logs
from postrail.shell.assignment import committed
from postrail.shell.context import Context
from postrail.shell.dead_letters import dead_letter
from postrail.shell.storing import LOG_RETRY_SECONDS, append_groups, until_taken
from postrail.wire import codec
from postrail.wire.input import deferred_of

LOG = logs.logger("scheduler")

# Deliveries handed back to routing. tier: the tier's seconds. Nothing to alert on by itself.
DUE = Counter("postrail_scheduler_due_total", "Deliveries whose time had come.", ["tier"])
# How long after its time a delivery was handed back; after the end of the tier, where it was parked there until its turn.
# tier: the tier's seconds. Alert when the 99th percentile exceeds a fifth of the tier for 10 minutes: retries come late because
# the log or this process is too slow.
LAG = Histogram(
    "postrail_scheduler_lag_seconds",
    "Time from when a delivery was due to when it was handed back.",
    ["tier"],
    buckets=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
)
# Records of the tiers that could not be read. Alert on any increase: a message waits for a person in the topic dead-letters.
DEAD_LETTERS = Counter("postrail_scheduler_dead_letters_total", "Records of the tiers that could not be read.")

GROUP = "scheduler"
LONGEST_WAIT_SECONDS = 1.0
RESOLUTION_SECONDS = 0.2
"""How late a delivery may be handed back so that several are stored together; a fifth of the tier where that is shorter."""
DRAIN_SECONDS = 10.0
NO_PROGRESS_SECONDS = 60.0


class TierReader:
    """One tier of the retry delays. `joins`: what gives it a consumer; None: the log itself."""

    def __init__(self, context: Context, tier_seconds: float, joins: Membership | None = None) -> None:
        self._log = context.log
        self._joins: Membership | Log = joins or context.log
        self._clock = context.clock
        self._tier_seconds = tier_seconds
        self._topic = topics.deferred(tier_seconds)
        self._pause_seconds = min(RESOLUTION_SECONDS, tier_seconds / 5) / 2
        self._window = Window()
        self._order = count()
        self._trackers: dict[TopicPartition, Tracker] = {}
        self._paused: set[TopicPartition] = set()
        self._consumer: Consumer | TierConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._storing = False
        self._stored = asyncio.Event()
        self._draining = False
        self._trouble = ""
        self._trouble_since = 0.0
        tier = f"{tier_seconds:g}"
        self._due_metric = DUE.labels(tier)
        self._lag_metric = LAG.labels(tier)

    async def start(self) -> None:
        """Join the group and take up work."""
        consumer = await self._joins.consumer(
            [self._topic], GROUP, on_assigned=self._assigned, on_revoked=self._revoked
        )
        self._consumer = consumer
        self._task = asyncio.create_task(self._run(consumer), name=f"scheduler {self._topic}")

    async def drain(self) -> None:
        """Finish the transaction under way, leave the group."""
        self._draining = True
        if self._task is None or self._consumer is None:
            return
        if not self._storing:
            self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=DRAIN_SECONDS)
        if late:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._consumer.close()

    def problem(self) -> str | None:
        """Why retries of this tier do not come back."""
        if self._task is None or self._draining:
            return None
        if self._task.done():
            return f"the scheduler of {self._topic} has stopped: {self._task.exception()!r}; restart the process"
        if self._trouble and time.monotonic() - self._trouble_since > NO_PROGRESS_SECONDS:
            return f"the scheduler of {self._topic} makes no progress: {self._trouble}"
        return None

    async def _run(self, consumer: Consumer | TierConsumer) -> None:
        delay = LOG_RETRY_SECONDS[0]
        while not self._draining:
            try:
                await self._read(consumer)
                due = self._window.take_due(self._clock(), time.monotonic())
                if due:
                    await self._hand_back(consumer, due)
                delay = LOG_RETRY_SECONDS[0]
            except Exception as error:
                self._cannot(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LOG_RETRY_SECONDS[1])

    async def _read(self, consumer: Consumer | TierConsumer) -> None:
        """Read ahead, or wait until something is due. What comes or becomes due one by one is waited for a moment."""
        wait_seconds = self._window.seconds_to_next(self._clock(), time.monotonic())
        wait_seconds = min(max(wait_seconds, self._pause_seconds), LONGEST_WAIT_SECONDS)
        room = self._window.room
        if not room:
            await asyncio.sleep(wait_seconds)
            return
        records = await consumer.poll(room, wait_seconds)
        for record in records:
            self._take(record)
        if 0 < len(records) < room:
            await asyncio.sleep(self._pause_seconds)

    def _take(self, record: Record) -> None:
        partition = TopicPartition(record.topic, record.partition)
        tracker = self._trackers.get(partition)
        if tracker is None:
            return  # given up since it was read: its next owner reads it
        tracker.start(record.offset)
        now = self._clock()
        try:
            deferred = deferred_of(record)
        except codec.UndecodableRecord as error:
            due_at, append = now, self._bury(record, error, now)
            late_from = now
        else:
            due_at = deferred.due_at
            is_parked = deferred.delivery.parks > 0
            late_from = max(due_at, deferred.deferred_at + self._tier_seconds) if is_parked else due_at
            topic = topics.laned(topics.DUE, deferred.delivery.envelope.lane)
            value = codec.encode_delivery(deferred.delivery)
            append = Append(topic, record.key, value, record.body, deferred.delivery)
        latest = time.monotonic() + min(max(due_at - now, 0.0), self._tier_seconds)
        self._window.add(Waiting(due_at, next(self._order), latest, partition, record.offset, append, late_from))

    def _bury(self, record: Record, error: Exception, now: float) -> Append:
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        LOG.error("record cannot be read; moved to dead-letters", reason=str(error), **where)
        DEAD_LETTERS.inc()
        return dead_letter(record, "scheduler", error, 1, now)

    async def _hand_back(self, consumer: Consumer | TierConsumer, due: Sequence[Waiting]) -> None:
        """Append what is due and commit; then count it."""
        self._storing = True
        self._stored.clear()
        try:
            due = await self._store(due)
        finally:
            self._storing = False
            self._stored.set()
        now = self._clock()
        self._trouble = ""
        self._due_metric.inc(len(due))
        for waiting in due:
            self._lag_metric.observe(max(now - waiting.late_from, 0.0))
        self._pause_and_resume(consumer)

    async def _store(self, due: Sequence[Waiting]) -> Sequence[Waiting]:
        """Append and commit, until the log takes it, or until others own what it commits; returns what is handed back.

        On a log that is not atomic these are two steps, so that nothing is appended twice because a commit fails.
        """
        if not self._log.is_atomic:
            due = await self._append(due)

        def transact() -> Awaitable[None]:
            mine = self._owned(due)
            appends = [waiting.append for waiting in mine] if self._log.is_atomic else []
            for waiting in mine:
                self._trackers[waiting.partition].finish(waiting.offset)
            touched = {waiting.partition for waiting in mine}
            commits = [Commit(GROUP, partition, self._trackers[partition].progress()) for partition in touched]
            return self._log.transact(appends, commits)

        await until_taken(transact, lambda: bool(self._owned(due)), self._cannot)
        return due

    async def _append(self, due: Sequence[Waiting]) -> Sequence[Waiting]:
        """Append what is due; returns what is stored. The rest is due again later."""
        stored: list[Waiting] = []

        async def append() -> None:
            mine = self._owned(due)
            too_large = await append_groups(self._log, [[waiting.append] for waiting in mine], LOG, topic=self._topic)
            later, latest = self._clock() + TOO_LARGE_RETRY_SECONDS, time.monotonic() + TOO_LARGE_RETRY_SECONDS
            for waiting, left in zip(mine, too_large, strict=True):
                if left:
                    self._window.add(waiting._replace(due_at=later, latest=latest))
                else:
                    stored.append(waiting)

        await until_taken(append, lambda: bool(self._owned(due)), self._cannot)
        return stored

    def _owned(self, due: Sequence[Waiting]) -> list[Waiting]:
        return [waiting for waiting in due if waiting.partition in self._trackers]

    def _pause_and_resume(self, consumer: Consumer | TierConsumer) -> None:
        """Read no further of a partition whose oldest waiting record is too far behind its newest."""
        for partition, tracker in self._trackers.items():
            too_far = tracker.spread > SAFE_SPREAD
            if too_far and partition not in self._paused:
                self._paused.add(partition)
                consumer.pause([partition])
            elif not too_far and partition in self._paused:
                self._paused.discard(partition)
                consumer.resume([partition])

    def _cannot(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if reason == self._trouble:
            return
        self._trouble, self._trouble_since = reason, time.monotonic()
        if isinstance(error, LogError):
            LOG.warning("log unusable; tried again until it is", topic=self._topic, reason=reason)
        else:
            LOG.exception("reading a tier failed; tried again", topic=self._topic, reason=reason)

    async def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        found = await committed(self._log, GROUP, partitions)
        for partition in partitions:
            progress = found[partition] or Progress(0)
            self._trackers[partition] = Tracker(progress.low, progress.above)

    async def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget what waits here: its next owner reads it again. What is being stored is committed first."""
        self._window.forget(set(partitions))
        if self._storing:
            waiting = asyncio.ensure_future(self._stored.wait())
            await asyncio.wait([waiting], timeout=DRAIN_SECONDS)
            waiting.cancel()
        for partition in partitions:
            self._trackers.pop(partition, None)
            self._paused.discard(partition)
        self._window.forget(set(partitions))  # also what came in meanwhile
