"""What a stage holds between polling and committing: the state of its partitions, and the records that wait for a later try.

Owns no decision and no I/O but timers. Neighbour: `postrail.shell.stage`, the only user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from prometheus_client import Gauge

from postrail.log.interface import Append, TopicPartition
from postrail.log.progress import Progress, Tracker


@dataclass(slots=True, eq=False)
class Partition:
    """What is under way of one assigned partition.

    Attributes:
        leaving: it is being given up: nothing more of it is taken up.
        revoked: it is given up: nothing more of it is stored.
    """

    name: TopicPartition
    tracker: Tracker
    leaving: bool = False
    revoked: bool = False
    paused: bool = False

    def progress(self) -> Progress:
        """What can be committed now."""
        return self.tracker.progress()


class Outcome(NamedTuple):
    """What follows from a record: it is finished when these are stored."""

    partition: Partition
    offset: int
    appends: Sequence[Append]


class KeptBack:
    """Records that wait, each until its delay is over or its partition is let go."""

    def __init__(self, metric: Gauge) -> None:
        self._metric = metric
        self._ids = count()
        self._kept: dict[int, tuple[Partition, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, partition: Partition, delay_seconds: float, again: Callable[[], None]) -> None:
        """Wait with a record of a partition, then call `again`."""
        kept_id = next(self._ids)
        timer = asyncio.get_running_loop().call_later(delay_seconds, self._due, kept_id, again)
        self._kept[kept_id] = (partition, timer)
        self._metric.inc()

    def let_go(self, partitions: Collection[Partition]) -> None:
        """Forget the records of these partitions: they are not finished, and are read again by whoever comes next."""
        for kept_id in [kept_id for kept_id, (partition, _) in self._kept.items() if partition in partitions]:
            self._kept.pop(kept_id)[1].cancel()
            self._metric.dec()

    def _due(self, kept_id: int, again: Callable[[], None]) -> None:
        del self._kept[kept_id]
        self._metric.dec()
        again()
