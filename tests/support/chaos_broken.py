"""Deliberately broken builds: what the ledger must catch, or it proves nothing.

Owns the breakages, each of which replaces one method of a log in the process that applies it. Only `chaos_launcher` and
`service_launcher` apply them; no test runs with one in its own process.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from postrail.core.topics import tier_of
from postrail.log.interface import Append, Commit, LogError, Position, Record, TopicPartition
from postrail.log.kafka import KafkaLog
from postrail.log.kafka.commits import Commits
from postrail.log.kafka.consumer import KafkaConsumer
from postrail.log.progress import Progress
from postrail.log.sqlite.log import SqliteLog

DELAY_SECONDS = 0.05
AFTER_COMMIT_SECONDS = 0.5
"""Longer than a commit over Kafka takes, also on a machine that is busy with other things."""
EARLY_250 = "early-250"
COMMIT_BEFORE_APPEND = "commit-before-append"
COMMIT_LONG_AFTER_APPEND = "commit-long-after-append"
OUTCOMES_UNREAD = "outcomes-unread"
LEASE_IGNORED = "lease-ignored"
DIES_AFTER_RETRY = "dies-after-retry"


def apply(name: str) -> None:
    """Break this process; `name` is one of the constants above."""
    _BREAKAGES[name]()


def _answer_before_durable(log: type[Any], delay_seconds: float = DELAY_SECONDS) -> None:
    """`append` returns at once, and stores a little later: a 250 is given for what a crash loses.

    On Kafka stages append with it, too, and then commit: what they have read is finished before what comes of it is stored.
    """
    store = log.append
    tasks: set[asyncio.Task[None]] = set()

    async def later(self: Any, appends: Sequence[Append]) -> None:
        await asyncio.sleep(delay_seconds)
        try:
            await store(self, appends)
        except LogError:
            return  # the log closed first

    async def append(self: Any, appends: Sequence[Append]) -> list[Position]:
        task = asyncio.create_task(later(self, appends))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return []

    log.append = append


def _early_250() -> None:
    """A process has one of the two."""
    _answer_before_durable(SqliteLog)
    _answer_before_durable(KafkaLog)


def _commit_before_append() -> None:
    """`transact` commits first, and at once: a crash in between loses what should have been appended."""
    _answer_before_durable(KafkaLog, AFTER_COMMIT_SECONDS)
    commit = Commits.commit

    async def at_once(self: Commits, commits: Mapping[TopicPartition, Progress]) -> None:
        await commit(self, commits)
        await self.flush()

    Commits.commit = at_once  # type: ignore[method-assign]
    transact = SqliteLog.transact

    async def broken(self: SqliteLog, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        await transact(self, [], commits)
        await asyncio.sleep(DELAY_SECONDS)
        await transact(self, appends, [])

    SqliteLog.transact = broken  # type: ignore[method-assign]


def _commit_long_after_append() -> None:
    """`transact` is two transactions: a crash in between repeats what is recorded already."""
    transact = SqliteLog.transact

    async def broken(self: SqliteLog, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        await transact(self, appends, [])
        await asyncio.sleep(DELAY_SECONDS)
        await transact(self, [], commits)

    SqliteLog.transact = broken  # type: ignore[method-assign]


def _outcomes_unread() -> None:
    """A new owner of a Kafka partition does not learn what the one before it has finished."""

    async def tail(
        self: KafkaLog, topic: str, partition: int, *, newest: int, since: int | None = None
    ) -> list[Record]:
        return []

    KafkaLog.tail = tail  # type: ignore[method-assign]


def _lease_ignored() -> None:
    """A member of a Kafka group takes itself for the owner of its partitions for ever."""

    def lease_seconds(self: KafkaConsumer) -> float:
        return math.inf

    KafkaConsumer.lease_seconds = lease_seconds  # type: ignore[method-assign]


def _dies_after_retry() -> None:
    """Not a defect, but a moment that is hard to hit: kill -9 when a deferral is stored on Kafka, and its outcome is not."""
    store = KafkaLog.append

    async def append(self: KafkaLog, appends: Sequence[Append]) -> list[Position]:
        positions = await store(self, appends)
        if any(tier_of(append.topic) is not None for append in appends):
            os.kill(os.getpid(), signal.SIGKILL)
        return positions

    KafkaLog.append = append  # type: ignore[method-assign]


_BREAKAGES: dict[str, Callable[[], None]] = {
    EARLY_250: _early_250,
    COMMIT_BEFORE_APPEND: _commit_before_append,
    COMMIT_LONG_AFTER_APPEND: _commit_long_after_append,
    OUTCOMES_UNREAD: _outcomes_unread,
    LEASE_IGNORED: _lease_ignored,
    DIES_AFTER_RETRY: _dies_after_retry,
}
