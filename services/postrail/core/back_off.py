"""For how long something is left alone after it failed: longer each time, until it works again.

Owns that arithmetic. Time is an argument. `postrail.sender.site_queue` has one for its site and one for each set of mail hosts.
"""

from __future__ import annotations

from collections.abc import Sequence


class BackOff:
    """One thing that may be left alone.

    Attributes:
        reason: why, as last said; "" when it never was.
    """

    __slots__ = ("_delays_seconds", "_level", "_until", "reason")

    def __init__(self, delays_seconds: Sequence[float]) -> None:
        self.reason = ""
        self._delays_seconds = delays_seconds
        self._level = 0
        self._until = 0.0

    def begin(self, now: float, reason: str) -> bool:
        """Leave it alone from now on; False when that is so already: then nothing changes."""
        if now < self._until:
            return False
        self._until = now + self._delays_seconds[min(self._level, len(self._delays_seconds) - 1)]
        self._level += 1
        self.reason = reason
        return True

    def worked(self, now: float) -> None:
        """It works: the next failure is a first one. What was said during the pause does not count."""
        if self._level and now >= self._until:
            self._level = 0

    def remaining_seconds(self, now: float) -> float:
        """How long it is still left alone; 0 when it is not."""
        return max(0.0, self._until - now)

    def is_remembered(self, now: float) -> bool:
        """Whether the next delay would still depend on the past: forgotten after twice the longest delay."""
        return bool(self._until) and now < self._until + 2 * self._delays_seconds[-1]
