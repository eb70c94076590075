"""The next records of a tier, ordered by when they are due.

Owns the bounded window over the front of a tier's topic. A tier is in due order except for the jitter of its delays and for
what is parked until its turn, so its front holds what is due first or nearly so; the window puts that in order. Pure: clocks
are arguments. What lies behind the window stays in the log and costs nothing. Its neighbour `postrail.scheduler.tier` fills and
empties it.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from postrail.log.interface import Append, TopicPartition

MAX_RECORDS = 500
MAX_BYTES = 4 << 20


class Waiting(NamedTuple):
    """A record that waits in memory; sorted by `due_at`, then by its order of reading.

    `due_at` and `late_from` are Unix time. `latest` is on a clock that never goes back: then it is due whatever the other clock
    says.
    """

    due_at: float
    order: int
    latest: float
    partition: TopicPartition
    offset: int
    append: Append
    late_from: float


class Window:
    """Records read ahead: at most about MAX_RECORDS, and no more once MAX_BYTES are held."""

    def __init__(self) -> None:
        self._heap: list[Waiting] = []
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def room(self) -> int:
        """How many more may be read."""
        return 0 if self._held_bytes >= MAX_BYTES else max(MAX_RECORDS - len(self._heap), 0)

    def add(self, waiting: Waiting) -> None:
        """Take a record in."""
        heapq.heappush(self._heap, waiting)
        self._held_bytes += len(waiting.append.value)

    def take_due(self, now: float, monotonic: float) -> list[Waiting]:
        """Take out what is due, earliest first.

        Args:
            now: Unix time in seconds.
            monotonic: the clock of `latest`.
        """
        due: list[Waiting] = []
        while self._heap and (self._heap[0].due_at <= now or self._heap[0].latest <= monotonic):
            waiting = heapq.heappop(self._heap)
            self._held_bytes -= len(waiting.append.value)
            due.append(waiting)
        return due

    def seconds_to_next(self, now: float, monotonic: float) -> float:
        """How long until something is due; infinite where nothing waits, 0 where something is overdue."""
        if not self._heap:
            return float("inf")
        first = self._heap[0]
        return max(0.0, min(first.due_at - now, first.latest - monotonic))

    def forget(self, partitions: set[TopicPartition]) -> None:
        """Drop the records of these partitions: somebody else will read them."""
        self._heap = [waiting for waiting in self._heap if waiting.partition not in partitions]
        heapq.heapify(self._heap)
        self._held_bytes = sum(len(waiting.append.value) for waiting in self._heap)
