"""Stores what a member has finished: one request at a time, some time after the last one, with all that came since.

Owns the commits that wait, and that they are stored before partitions are given up (`flush`). Nobody waits for the others: a
crash before them repeats records, as one between an append and its commit does. A commit of a partition that is not ours any
more is dropped; one that the brokers did not take is tried again, because what it says stays true. Neither fails the caller.
Neighbours: `coordinator`, which speaks with the brokers; `progress`, what is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Container, Mapping

from aiokafka import errors
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.interface import TopicPartition
from postrail.log.kafka import metrics
from postrail.log.kafka.catalogue import metadata_of
from postrail.log.kafka.coordinator import CommitRefusedError, Coordinator
from postrail.log.progress import Progress
from postrail.shell import logs

LOG = logs.logger("log")

TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = 1.0


class Commits:
    """Of one member. `owned`: the partitions that it may commit for now."""

    def __init__(
        self,
        group: str,
        coordinator: Coordinator,
        outer: Callable[[str], str],
        owned: Callable[[], Container[TopicPartition]],
        interval_seconds: float,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._group, self._coordinator, self._outer, self._owned = group, coordinator, outer, owned
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[TopicPartition, Progress] = {}
        self._callers: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._stored_at = -math.inf
        self._wanted = asyncio.Event()
        self.failing: str | None = None

    async def commit(self, commits: Mapping[TopicPartition, Progress]) -> None:
        """Store these soon; what is not ours is dropped when this returns."""
        self._waiting.update(commits)
        owned = self._owned()
        if self._interval_seconds <= 0 or any(where not in owned for where in commits):
            await self.flush()
        else:
            self._start()

    async def flush(self) -> None:
        """Return when all (or newer ones of the same partitions) are stored, dropped, or could not be stored for now."""
        if not self._waiting and (self._task is None or self._task.done()):
            return
        caller = self._loop.create_future()
        self._callers.append(caller)
        self._wanted.set()
        self._start()
        await caller

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    async def close(self) -> None:
        """Give up what still waits."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        callers: list[asyncio.Future[None]] = []
        try:
            while self._waiting or self._callers:
                await self._until_due()
                callers, self._callers = self._callers, []
                taken, self._waiting = self._waiting, {}
                self._stored_at = self._loop.time()
                stored = await self._store(taken)
                if not stored:
                    self._waiting = {**taken, **self._waiting}
                _tell(callers)
                if not stored and not self._callers:
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            _tell(callers)
            _tell(self._callers)

    async def _until_due(self) -> None:
        """Wait until the last request is long enough ago, or somebody waits for the next."""
        self._wanted.clear()
        wait_seconds = self._stored_at + self._interval_seconds - self._loop.time()
        if wait_seconds > 0 and not self._callers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), wait_seconds)

    async def _store(self, commits: Mapping[TopicPartition, Progress]) -> bool:
        """Whether nothing of these is left to be done."""
        owned = self._owned()
        ours = {where: progress for where, progress in commits.items() if where in owned}
        if len(ours) < len(commits):
            self._lost([where for where in commits if where not in ours])
        if not ours:
            return True
        offsets = {
            KafkaPartition(self._outer(where.topic), where.partition): OffsetAndMetadata(
                progress.low, metadata_of(progress)
            )
            for where, progress in ours.items()
        }
        try:
            await self._coordinator.commit(offsets, TIMEOUT_SECONDS)
        except CommitRefusedError:
            self._lost(list(ours))
        except (errors.KafkaError, OSError, TimeoutError) as error:
            metrics.COMMITS_DROPPED.labels("failed").inc(len(ours))
            self.failing = f"commits of the group {self._group} are not stored: {type(error).__name__} {error}".rstrip()
            LOG.warning("commit_failed", group=self._group, partitions=len(ours), problem=self.failing)
            return False
        self.failing = None
        return True

    def _lost(self, partitions: list[TopicPartition]) -> None:
        metrics.COMMITS_DROPPED.labels("lost").inc(len(partitions))
        LOG.warning(
            "commit_dropped",
            group=self._group,
            partitions=[f"{topic}/{number}" for topic, number in partitions],
            problem="they have another owner by now; their records may be read again",
        )


def _tell(callers: list[asyncio.Future[None]]) -> None:
    for caller in callers:
        if not caller.done():
            caller.set_result(None)
    callers.clear()
