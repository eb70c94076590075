"""Which records are not needed any more, and their deletion in slices that ride on the write groups.

Owns the plan of what may go: what is too old, and mail that every group has finished some time ago. It never touches what
lies above a group's finished offsets before its age is reached. Deleting itself is `store`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from postrail.core.log_config import LogConfig
from postrail.log.sqlite.partition import KEPT_LONGER, Partition
from postrail.log.sqlite.store import Store

SLICE_RECORDS = 128
"""So few that a slice costs a millisecond or two."""


class Job(NamedTuple):
    """Records of `partition` below `end` that were appended at `cutoff` (Unix time) or before may go."""

    partition: Partition
    end: int
    cutoff: float


class Trimmed(NamedTuple):
    """What a slice deleted; true once its transaction is committed."""

    partition: Partition
    first: int
    bodies: list[int]


def plan(partitions: Iterable[Partition], config: LogConfig, now: float) -> list[Job]:
    """What may be deleted at `now` (Unix time)."""
    jobs = []
    for partition in partitions:
        longer = partition.where.topic in KEPT_LONGER
        cutoff = now - (config.keep_events_seconds if longer else config.retention_seconds)
        if partition.first < partition.durable and partition.oldest_at <= cutoff:
            jobs.append(Job(partition, partition.durable, cutoff))
        cutoff = now - config.keep_consumed_seconds
        if not longer and partition.first < partition.finished and partition.oldest_at <= cutoff:
            jobs.append(Job(partition, min(partition.finished, partition.durable), cutoff))
    return jobs


class Trimmer:
    """The jobs that are left of the last plan."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()

    def slice(self, store: Store) -> Trimmed | None:
        """Stage the deletion of a few records; None when there is nothing (more) to delete."""
        while self.jobs:
            partition, end, cutoff = self.jobs[0]
            rows = store.oldest(partition, end, SLICE_RECORDS)
            if not rows:
                partition.first = max(partition.first, end)
            last, bodies = -1, set[int]()
            for offset, appended_at, body in rows:
                if appended_at > cutoff:
                    partition.oldest_at = appended_at
                    break
                last = offset
                if body is not None:
                    bodies.add(body)
            if last < 0 or last != rows[-1][0] or len(rows) < SLICE_RECORDS:
                self.jobs.popleft()
            if last >= 0:
                return Trimmed(partition, last + 1, store.trim(partition, last, bodies))
        return None
