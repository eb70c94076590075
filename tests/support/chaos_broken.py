"""Deliberately broken builds: what the ledger must catch, or it proves nothing.

Owns the breakages, each of which replaces one method of a log in the process that applies it. Only `chaos_launcher` and
`service_launcher` apply them; no test runs with one in its own process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from postrail.log.interface import Append, Commit, LogError, Position, Record
from postrail.log.kafka import KafkaLog
from postrail.log.sqlite.log import SqliteLog

DELAY_SECONDS = 0.05
EARLY_250 = "early-250"
COMMIT_BEFORE_APPEND = "commit-before-append"
COMMIT_LONG_AFTER_APPEND = "commit-long-after-append"
OUTCOMES_UNREAD = "outcomes-unread"


def apply(name: str) -> None:
    """Break this process; `name` is one of the constants above."""
    _BREAKAGES[name]()


def _answer_before_durable() -> None:
    """`append` returns at once, and stores a little later: a 250 is given for what a crash loses."""
    store = SqliteLog.append
    tasks: set[asyncio.Task[None]] = set()

    async def later(log: SqliteLog, appends: Sequence[Append]) -> None:
        await asyncio.sleep(DELAY_SECONDS)
        try:
            await store(log, appends)
        except LogError:
            return  # the log closed first

    async def append(self: SqliteLog, appends: Sequence[Append]) -> list[Position]:
        task = asyncio.create_task(later(self, appends))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return []

    SqliteLog.append = append  # type: ignore[method-assign]


def _commit_before_append() -> None:
    """`transact` commits first: a crash in between loses what should have been appended."""
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


_BREAKAGES: dict[str, Callable[[], None]] = {
    EARLY_250: _answer_before_durable,
    COMMIT_BEFORE_APPEND: _commit_before_append,
    COMMIT_LONG_AFTER_APPEND: _commit_long_after_append,
    OUTCOMES_UNREAD: _outcomes_unread,
}
