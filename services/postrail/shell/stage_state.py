"""What a stage's two loops share: the state of its partitions, the records that wait for a later try, how the log does.

Owns no decision and no I/O but timers. Neighbours: `postrail.shell.stage` and `stage_commits`, the only users.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from prometheus_client import Gauge

from postrail.log.interface import Append, LogFull, LogUnavailable, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.shell import logs

LOG = logs.logger("stage")

DRAIN_SECONDS = 10.0


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
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, partition: Partition, delay_seconds: float, again: Callable[[], None]) -> None:
        """Wait with a record of a partition, then call `again`; not after `close`."""
        if self._closed:
            return
        kept_id = next(self._ids)
        timer = asyncio.get_running_loop().call_later(delay_seconds, self._due, kept_id, again)
        self._kept[kept_id] = (partition, timer)
        self._metric.inc()

    def let_go(self, partitions: Collection[Partition]) -> None:
        """Forget the records of these partitions: they are not finished, and are read again by whoever comes next."""
        for kept_id in [kept_id for kept_id, (partition, _) in self._kept.items() if partition in partitions]:
            self._kept.pop(kept_id)[1].cancel()
            self._metric.dec()

    def close(self) -> None:
        """Forget all records, also those that come."""
        self._closed = True
        self.let_go({partition for partition, _ in self._kept.values()})

    def _due(self, kept_id: int, again: Callable[[], None]) -> None:
        del self._kept[kept_id]
        self._metric.dec()
        again()


class Health:
    """How a stage gets on with the log.

    Attributes:
        trouble: what the log refused last; "" once it has taken something.
        progress_at: when the stage last got on, or had nothing to do; on the clock that never goes back.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.trouble = ""
        self.progress_at = 0.0

    def goes_on(self) -> None:
        """Something is stored, or there is nothing to store."""
        self.trouble = ""
        self.progress_at = time.monotonic()

    def cannot(self, verb: str, error: Exception) -> None:
        """The log refused; told once for each reason."""
        reason = f"cannot {verb} the log: {type(error).__name__}: {error}"
        if reason == self.trouble:
            return
        self.trouble = reason
        if isinstance(error, (LogFull, LogUnavailable)):
            LOG.warning("log unusable; tried again until it is", stage=self._name, reason=reason)
        else:
            LOG.error("log failed; tried again", stage=self._name, reason=reason, traceback=traceback_of(error))


def traceback_of(error: Exception) -> str:
    """As Python prints it."""
    return "".join(traceback.format_exception(error))
