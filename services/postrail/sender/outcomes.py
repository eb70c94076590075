"""Makes outcomes durable, together with the offsets that they finish: consume, produce, commit.

Owns the only transactions of the sender. Outcomes gather while one transaction runs and go with the next, so their number
follows the speed of the disk, not that of the mail. An outcome that the log cannot take is kept and tried again; its record
stays unfinished until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from postrail.log.interface import Append, Commit, Log, LogError
from postrail.sender.job import Partition
from postrail.shell import logs

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


@dataclass(slots=True)
class _Outcome:
    partition: Partition
    offset: int
    appends: Sequence[Append]


class Outcomes:
    """Takes outcomes, makes them durable.

    Args:
        on_durable: called after each transaction, with the partition of each record that it finished.
    """

    def __init__(self, log: Log, on_durable: Callable[[Sequence[Partition]], None]) -> None:
        self._log = log
        self._on_durable = on_durable
        self._pending: list[_Outcome] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.refusal: str | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="sender outcomes")

    def record(self, partition: Partition, offset: int, appends: Sequence[Append]) -> None:
        """Take what follows from a record; the record is then finished."""
        self._pending.append(_Outcome(partition, offset, appends))
        self._wanted.set()

    async def close(self, within_seconds: float) -> None:
        """Write what waits, for so long at most; what is not written stays unfinished in the log."""
        self._closing = True
        self._wanted.set()
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
            if not self._closing and len(self._pending) < MAX_BATCH:
                await asyncio.sleep(LINGER_SECONDS)
            batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
            if not self._pending:
                self._wanted.clear()
            if batch:
                await self._write(batch)
            if self._closing and not self._pending:
                return

    async def _write(self, batch: Sequence[_Outcome]) -> None:
        appends = [append for outcome in batch for append in outcome.appends]
        touched: dict[int, Partition] = {}
        for outcome in batch:
            outcome.partition.tracker.finish(outcome.offset)
            touched[id(outcome.partition)] = outcome.partition
        commits = [Commit(partition.group, partition.name, partition.progress()) for partition in touched.values()]
        await self._transact(appends, commits)
        BATCH.observe(len(batch))
        for outcome in batch:
            outcome.partition.jobs.pop(outcome.offset, None)
        self._on_durable([outcome.partition for outcome in batch])

    async def _transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        tries = 0
        while True:
            try:
                await self._log.transact(appends, commits)
            except Exception as error:
                REFUSED.inc()
                self.refusal = f"the log does not take outcomes: {error}"
                if isinstance(error, LogError):
                    LOG.warning("outcomes-refused", reason=str(error), records=len(appends))
                else:
                    LOG.exception("outcomes-refused", records=len(appends))
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                self.refusal = None
                return
