"""Makes outcomes durable, together with the offsets that they finish: consume, produce, commit.

Owns the only writes of the sender. Outcomes gather while one write runs and go with the next, so their number follows the speed
of the log, not that of the mail. An outcome that the log cannot take is kept and tried again; its record stays unfinished
until then. Where the log finds a part of it too large, that waits by itself, and the others go on.

On an atomic log a write is one transaction. On another it has three steps, each durable before the next begins: what carries
mail (deferrals, notifications, dead letters); the events, with a record on the outcomes topic of what is finished, which a new
owner of the partition reads; the commit. So a record counts as finished only when all that keeps its mail is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from prometheus_client import Counter, Histogram

from postrail.core.records import Finished
from postrail.core.topics import EVENTS
from postrail.log.interface import (
    TOO_LARGE_RETRY_SECONDS,
    Append,
    Commit,
    Log,
    LogError,
    TopicPartition,
)
from postrail.sender.job import Partition
from postrail.shell import logs
from postrail.shell.storing import append_groups
from postrail.wire import codec

LOG = logs.logger("sender")

# Outcomes in one transaction. Nothing to alert on.
BATCH = Histogram(
    "postrail_sender_outcome_batch_size",
    "Outcomes made durable together.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
# Transactions that the log refused (full or unavailable); each is tried again. Alert on any increase over 5 minutes.
REFUSED = Counter("postrail_sender_outcome_refusals_total", "Transactions of outcomes that the log refused.")

RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
MAX_BATCH = 500
LINGER_SECONDS = 0.005
"""How long outcomes gather before a transaction, so that a fast sender makes fewer of them."""
STEPS_LINGER_SECONDS = 0.06
"""The same where a write has steps: each costs a request."""
STEPS_ENOUGH = 64
"""Then no more are waited for: what gathers may be sent again after a crash."""


@dataclass(slots=True)
class _Outcome:
    partition: Partition
    offset: int
    appends: Sequence[Append]
    name: str
    ended: Sequence[str]


class Outcomes:
    """Takes outcomes, makes them durable.

    Args:
        on_durable: called after each transaction, with the partition of each record that it finished.
        tell: the outcomes topic of a reader group.
    """

    def __init__(self, log: Log, on_durable: Callable[[Sequence[Partition]], None], tell: Callable[[str], str]) -> None:
        self._log = log
        self._on_durable = on_durable
        self._tell = tell
        self._pending: list[_Outcome] = []
        self._writing: Sequence[_Outcome] = ()
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._linger_seconds = LINGER_SECONDS if log.is_atomic else STEPS_LINGER_SECONDS
        self._enough = MAX_BATCH if log.is_atomic else STEPS_ENOUGH
        self._has_enough = asyncio.Event()
        self.refusal: str | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="sender outcomes")

    def record(
        self,
        partition: Partition,
        offset: int,
        appends: Sequence[Append],
        name: str = "",
        ended: Sequence[str] = (),
    ) -> None:
        """Take what follows from a record; the record is then finished.

        Args:
            name: of its hand-over.
            ended: of recipients that ended with it, where the next owner must know.
        """
        self._add(_Outcome(partition, offset, appends, name, ended))

    def _add(self, outcome: _Outcome) -> None:
        self._pending.append(outcome)
        self._wanted.set()
        if len(self._pending) >= self._enough:
            self._has_enough.set()

    def names_not_durable(self, partition: TopicPartition) -> list[str]:
        """The hand-overs of a partition whose outcome the log does not have yet."""
        mine = [outcome for outcome in (*self._writing, *self._pending) if outcome.partition.name == partition]
        return [name for outcome in mine for name in (outcome.name, *outcome.ended)]

    async def settled(self, partitions: Collection[Partition], within_seconds: float) -> bool:
        """Wait until all that was recorded of these partitions is durable and committed; False when that took too long."""
        try:
            async with asyncio.timeout(within_seconds):
                while any(outcome.partition in partitions for outcome in (*self._writing, *self._pending)):
                    if self._task is None or self._task.done():
                        return False
                    self._written.clear()
                    await self._written.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, within_seconds: float) -> None:
        """Write what waits, for so long at most; what is not written stays unfinished in the log."""
        self._closing = True
        self._wanted.set()
        self._has_enough.set()
        if self._task is None:
            return
        _, running = await asyncio.wait([self._task], timeout=within_seconds)
        if running:
            LOG.error("outcomes-not-written", outcomes=len(self._pending), reason=self.refusal or "the log is slow")
            self._task.cancel()
            await asyncio.wait([self._task])
            return
        self._task.result()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            if not self._closing and len(self._pending) < self._enough:
                await self._gather()
            batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
            if not self._pending:
                self._wanted.clear()
            if len(self._pending) < self._enough:
                self._has_enough.clear()
            if batch:
                self._writing = batch
                await self._write(batch)
                self._writing = ()
                self._written.set()
            if self._closing and not self._pending:
                return

    async def _gather(self) -> None:
        """Let outcomes gather until they are enough, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                await self._has_enough.wait()

    async def _write(self, batch: Sequence[_Outcome]) -> None:
        if not self._log.is_atomic:
            batch = await self._write_mail(batch)
        appends = [append for outcome in batch for append in outcome.appends]
        touched: dict[int, Partition] = {}
        counted: list[Partition] = []
        for outcome in batch:
            partition = outcome.partition
            if not partition.lost:
                partition.tracker.finish(outcome.offset)
                touched[id(partition)] = partition
                counted.append(partition)
        if self._log.is_atomic:
            await self._stored(lambda: self._log.transact(appends, _commits(touched.values())), len(appends))
        else:
            await self._tell_and_commit(batch, appends, touched.values())
        BATCH.observe(len(batch))
        for outcome in batch:
            outcome.partition.jobs.pop(outcome.offset, None)
        self._on_durable(counted)

    async def _write_mail(self, batch: Sequence[_Outcome]) -> Sequence[_Outcome]:
        """The first step; returns the outcomes for which it is done."""
        groups = [[append for append in outcome.appends if append.topic != EVENTS] for outcome in batch]
        stored: list[_Outcome] = []

        async def append() -> None:
            for outcome, left in zip(batch, await append_groups(self._log, groups, LOG), strict=True):
                if left:
                    self._keep(outcome, left)
                else:
                    stored.append(outcome)

        await self._stored(append, sum(map(len, groups)))
        return stored

    def _keep(self, outcome: _Outcome, mail: Sequence[Append]) -> None:
        """This much of an outcome's mail is too large for the log; what else it had is stored."""
        rest = replace(outcome, appends=[*mail, *(append for append in outcome.appends if append.topic == EVENTS)])
        asyncio.get_running_loop().call_later(TOO_LARGE_RETRY_SECONDS, self._try_again, rest)

    def _try_again(self, outcome: _Outcome) -> None:
        if not outcome.partition.lost and not self._closing:  # otherwise its next owner does it again
            self._add(outcome)

    async def _tell_and_commit(
        self, batch: Sequence[_Outcome], appends: Sequence[Append], touched: Collection[Partition]
    ) -> None:
        told = [append for append in appends if append.topic == EVENTS] + self._finished(batch)
        if told:
            await self._stored(lambda: self._log.append(told), len(told))
        if touched:
            await self._stored(lambda: self._log.transact((), _commits(touched)), 0)

    def _finished(self, batch: Sequence[_Outcome]) -> list[Append]:
        """The records of the outcomes topic: one for each partition. Repeats, which lead to nothing, are not told of."""
        by_partition: dict[Partition, list[_Outcome]] = {}
        for outcome in batch:
            if outcome.appends:
                by_partition.setdefault(outcome.partition, []).append(outcome)
        records = []
        for partition, told in by_partition.items():
            offsets = tuple([outcome.offset for outcome in told])
            names = [outcome.name for outcome in told] + [name for outcome in told for name in outcome.ended]
            finished = Finished(*partition.name, offsets, tuple(names))
            key = partition.ownership.key if partition.ownership is not None else b""
            records.append(Append(self._tell(partition.group), key, codec.encode_finished(finished)))
        return records

    async def _stored(self, store: Callable[[], Awaitable[object]], records: int) -> None:
        """Store, again and again until the log takes it."""
        tries = 0
        while True:
            try:
                await store()
            except Exception as error:
                REFUSED.inc()
                self.refusal = f"the log does not take outcomes: {error}"
                if isinstance(error, LogError):
                    LOG.warning("outcomes-refused", reason=str(error), records=records)
                else:
                    LOG.exception("outcomes-refused", records=records)
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                self.refusal = None
                return


def _commits(partitions: Collection[Partition]) -> list[Commit]:
    """What can be committed now of those that are still ours."""
    return [
        Commit(partition.group, partition.name, partition.progress()) for partition in partitions if not partition.lost
    ]
