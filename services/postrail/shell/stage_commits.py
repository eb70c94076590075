"""Makes a stage's outcomes durable: appends the outputs, then commits the inputs, or both in one transaction.

Owns that order: no record is committed before its outputs are stored, and there is never more than one transaction under way, so
commits are in order. A transaction starts when a polled batch is handled, or for what finishes later (awaitables, records kept
back) as soon as the one before it is stored. Neighbours: `stage`, the only user; `stage_state`; `postrail.log.progress` (which
offsets are finished).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from prometheus_client import Counter, Histogram

from postrail.log.interface import TOO_LARGE_RETRY_SECONDS, Append, Commit, Consumer, Log
from postrail.log.progress import SAFE_SPREAD, STOP_FETCHING_AT_BYTES
from postrail.shell import logs
from postrail.shell.stage_state import (
    DRAIN_SECONDS,
    Health,
    KeptBack,
    Outcome,
    Partition,
)
from postrail.shell.storing import append_groups, until_taken

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


class Commits:
    """The outcomes that wait for a transaction, and the task that stores them.

    Args:
        batch: about how many a transaction holds.
        kept: where an outcome waits that the log finds too large.
        room: set when there are fewer.
    """

    def __init__(
        self, name: str, log: Log, group: str, batch: int, kept: KeptBack, health: Health, room: asyncio.Event
    ) -> None:
        self._name, self._log, self._group, self._batch = name, log, group, batch
        self._kept, self._health, self._room = kept, health, room
        self._outcomes: list[Outcome] = []
        self._gathering = False
        self._storing = False
        self._closing = False
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._records_metric = RECORDS.labels(name)
        self._transaction_metric = TRANSACTION.labels(name)
        self.task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many outcomes wait for the next transaction."""
        return len(self._outcomes)

    @property
    def are_busy(self) -> bool:
        """Whether anything is not durable yet, besides what is kept back."""
        return bool(self._outcomes) or self._storing

    def add(self, outcome: Outcome) -> None:
        """Take what follows from a record; once it is stored the record is finished."""
        self._outcomes.append(outcome)
        if not self._gathering or len(self._outcomes) >= self._batch:
            self._ready.set()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """While a batch is handled its outcomes wait for each other."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            if self._outcomes:
                self._ready.set()

    def start(self, consumer: Consumer) -> None:
        """Begin to store."""
        self.task = asyncio.create_task(self._run(consumer), name=f"{self._name}-commit")

    async def settled(self) -> None:
        """Wait until all that was added is stored, for DRAIN_SECONDS at most."""
        if self.task is not None and not self.task.done() and self.are_busy:
            self._idle.clear()
            waiting = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait([waiting], timeout=DRAIN_SECONDS)
            waiting.cancel()

    async def close(self) -> None:
        """Store what was added, for DRAIN_SECONDS at most; what is not stored then is read again by whoever comes next."""
        if self.task is None:
            return
        self._closing = True
        self._ready.set()
        await asyncio.wait([self.task], timeout=DRAIN_SECONDS)
        if not self.task.done():
            reason = self._health.trouble
            LOG.warning("drained without a last commit; records are read again", stage=self._name, reason=reason)
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _run(self, consumer: Consumer) -> None:
        while True:
            if not self._outcomes or (self._gathering and len(self._outcomes) < self._batch):
                if not self._outcomes:
                    self._idle.set()
                    if self._closing:
                        return
                self._ready.clear()
                await self._ready.wait()
                continue
            self._idle.clear()
            self._storing = True
            taken, self._outcomes = self._outcomes, []
            self._room.set()
            with self._transaction_metric.time():
                finished = await self._store(taken)
            self._records_metric.inc(len(finished))
            self._health.goes_on()
            self._storing = False
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

    async def _until_taken(self, store: Callable[[], Awaitable[None]], partitions: Collection[Partition]) -> None:
        await until_taken(
            store,
            lambda: any(not partition.revoked for partition in partitions),
            partial(self._health.cannot, "write to"),
        )

    async def _append(self, taken: Sequence[Outcome]) -> Sequence[Outcome]:
        """Append the outputs; returns those outcomes all of whose outputs are stored."""
        stored: list[Outcome] = []

        async def append() -> None:
            outcomes = [outcome for outcome in taken if not outcome.partition.revoked]
            too_large = await append_groups(self._log, [outcome.appends for outcome in outcomes], LOG, stage=self._name)
            for outcome, left in zip(outcomes, too_large, strict=True):
                if left:
                    self._keep_output(outcome, left)
                else:
                    stored.append(outcome)

        await self._until_taken(append, [outcome.partition for outcome in taken])
        return stored

    def _keep_output(self, outcome: Outcome, left: Sequence[Append]) -> None:
        """The log does not take these outputs of a record, which stays unfinished."""
        if not outcome.partition.leaving:
            self._kept.keep(
                outcome.partition, TOO_LARGE_RETRY_SECONDS, partial(self.add, outcome._replace(appends=left))
            )

    def _pause_or_resume(self, consumer: Consumer, partition: Partition) -> None:
        if not partition.paused and partition.tracker.spread <= SAFE_SPREAD:
            return
        too_long = len(partition.progress().metadata()) > STOP_FETCHING_AT_BYTES
        if too_long == partition.paused or partition.revoked:
            return
        partition.paused = too_long
        if too_long:
            reason = "too many records are finished out of order"
            LOG.warning("stopped reading a partition", stage=self._name, topic=partition.name.topic, reason=reason)
            consumer.pause([partition.name])
        else:
            consumer.resume([partition.name])
