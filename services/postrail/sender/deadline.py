"""A time-out that is set anew for every message, and seldom reached.

Owns one timer of the event loop, which is moved when it fires too early: setting a deadline costs a number, not a timer. What
follows when it passes is its owner's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER = float("inf")
_RESOLUTION_SECONDS = 0.001
"""The event loop's: a timer may fire so much too early."""


class Deadline:
    """Calls `passed` once, when a deadline passes that was not cleared or set anew meanwhile."""

    __slots__ = ("_at", "_loop", "_passed", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at = NEVER
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float) -> None:
        """It passes so long from now."""
        self._at = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._at:
            self._move()

    def clear(self) -> None:
        """Nothing is waited for now."""
        self._at = NEVER

    def cancel(self) -> None:
        """It never passes; what it holds of the event loop is given back."""
        self._at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._at
        self._timer = self._loop.call_at(self._at, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self._at == NEVER:
            return
        if self._loop.time() < self._at - _RESOLUTION_SECONDS:
            self._move()
        else:
            self._at = NEVER
            self._passed()
