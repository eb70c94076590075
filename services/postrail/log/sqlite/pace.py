"""When the next write group starts: at once for a lone caller; under load when the event loop has nothing else to do.

A group costs an fsync and the pages that it touches, whatever is in it. So a group that starts while the loop still has work
makes that work's appends wait for one more: it is better to let the loop come to its end first, for which `Pace` watches
how long the loop takes from one round to the next. Owns the load seen and the start that is planned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

EARLIEST_SECONDS: Final = 0.008
"""Under full load a group starts no sooner than this after the one before; with less load it is less in proportion."""
LATEST_SECONDS: Final = 0.050
"""Under full load a group starts no later than this after the one before, however busy the loop is; in proportion, too."""
IDLE_ROUND_SECONDS: Final = 20e-6
"""A round of the loop that took less did nothing: uvloop's empty round takes 1.6 µs, asyncio's 4.2 µs; one reply takes more."""
MANY_WAITING: Final = 250
"""So many callers make a group that is worth its fsync: the loop is not waited for."""
FULL_LOAD_RECORDS_PER_SECOND: Final = 5000.0
LOAD_WINDOW_SECONDS: Final = 0.1


class Pace:
    """Calls `start` when a planned group is due.

    Attributes:
        started_at: when the group before started, by `clock`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.started_at = 0.0
        self._loop, self._start, self._clock = loop, start, clock
        self._records_per_second = 0.0
        self._latest = 0.0
        self._round_began = 0.0
        self._planned: asyncio.Handle | None = None

    def plan(self, waiting: int) -> None:
        """There is something to write, and no group under way; a second call changes nothing, unless many callers wait."""
        if self._planned is None:
            load = min(1.0, self._records_per_second / FULL_LOAD_RECORDS_PER_SECOND)
            self._latest = self.started_at + LATEST_SECONDS * load
            self._round_began = 0.0
            wait_seconds = self.started_at + EARLIEST_SECONDS * load - self._clock()
            if wait_seconds > 0:
                self._planned = self._loop.call_later(wait_seconds, self._look)
            else:
                self._planned = self._loop.call_soon(self._look)
        if waiting >= MANY_WAITING:
            self._latest = self.started_at

    def _look(self) -> None:
        """Start when the loop came round quickly, or when it is time; else look again after the loop's next round."""
        now = self._clock()
        if now - self._round_began < IDLE_ROUND_SECONDS or now >= self._latest:
            self._planned = None
            self._start()
        else:
            self._round_began = now
            self._planned = self._loop.call_soon(self._look)

    def started(self, records: int) -> None:
        """A group of so many records and callers starts now."""
        before, self.started_at = self.started_at, self._clock()
        elapsed_seconds = max(1e-6, self.started_at - before)
        weight = min(1.0, elapsed_seconds / LOAD_WINDOW_SECONDS)
        self._records_per_second += weight * (records / elapsed_seconds - self._records_per_second)

    def seconds(self) -> float:
        """Since the group started."""
        return self._clock() - self.started_at

    def cancel(self) -> None:
        """Start nothing."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
