"""The timers of an event loop, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast


class Timer:
    """A call that is due at a time, unless it is cancelled."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """`made` are all timers that were ever set, in that order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made: list[Timer] = []

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        """For what takes a loop and uses nothing of it but its timers."""
        return cast("asyncio.AbstractEventLoop", self)

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        self.made.append(Timer(at, call))
        return self.made[-1]

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now + seconds, call)

    def call_soon(self, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now, call)

    def until(self, now: float) -> None:
        """Let the time come, with all timers that are due by then, each at its own time."""
        while due := self._due(now):
            first = min(due, key=lambda timer: timer.at)
            self.now = max(self.now, first.at)
            self._run(first)
        self.now = now

    def round(self, seconds: float) -> None:
        """One round of the loop: so much time passes, then what was due by then is called, and nothing that is set meanwhile."""
        self.now += seconds
        for timer in self._due(self.now):
            if not timer.cancelled:
                self._run(timer)

    def _due(self, now: float) -> list[Timer]:
        return [timer for timer in self.made if not timer.cancelled and timer.at <= now]

    def _run(self, timer: Timer) -> None:
        timer.cancelled = True
        timer.call()
