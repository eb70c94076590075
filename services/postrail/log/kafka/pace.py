"""How long a consumer that has read all there is lets records gather before it fetches again. Pure.

A request costs the same with one record or a hundred. Where records come slowly, because many processes share them, a longer
pause brings as many of them as a short one elsewhere, so that the work costs as much however it is divided.
"""

from __future__ import annotations

ENOUGH_RECORDS = 16
"""What a fetch should bring: with as many, requests are a small part of the work."""
SHORTEST_SECONDS = 0.001


class Pace:
    """Of one consumer. `longest_seconds`: no pause is longer."""

    def __init__(self, longest_seconds: float, now: float) -> None:
        self._longest_seconds = longest_seconds
        self._fetched_at = now
        self._per_second = 0.0

    def pause_seconds(self, now: float, records: int, *, is_behind: bool) -> float:
        """How long to wait before the next fetch, now that one has brought so many records; 0 where more wait already."""
        elapsed = max(now - self._fetched_at, SHORTEST_SECONDS)
        self._fetched_at = now
        self._per_second = (self._per_second + records / elapsed) / 2
        if is_behind or not records:
            return 0.0
        return min(self._longest_seconds, ENOUGH_RECORDS / self._per_second)
