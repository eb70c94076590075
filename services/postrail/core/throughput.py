"""How fast a queue is served, and so how long something that joins it will wait.

Owns that estimate. Time is an argument. `postrail.sender.site_queue` measures with it; what a long wait means is decided there
and in `postrail.sender.service`.
"""

from __future__ import annotations

MEASURE_SECONDS = 5.0
"""How long is measured before the measure counts: less than that is how the queue started, or one hiccup."""


class Throughput:
    """The pace of a queue while it has work; pauses without work, and the wait for the first, do not count.

    Args:
        least_seconds: what each takes at least, because no more is allowed.
        now: seconds of any steady clock.
    """

    __slots__ = ("_finished", "_finished_at", "_least_seconds", "_measured_seconds", "_since")

    def __init__(self, least_seconds: float, now: float) -> None:
        self._least_seconds = least_seconds
        self._measured_seconds = 0.0
        self._finished = 0
        self._finished_at = now
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """The empty queue gets work."""
        self._finished_at = now
        self._finished = 0
        self._since = None

    def finish(self, now: float) -> None:
        """One is served."""
        self._finished_at = now
        if self._since is None:
            self._since = now
            return
        self._finished += 1
        elapsed = now - self._since
        if elapsed >= MEASURE_SECONDS:
            self._measured_seconds = elapsed / self._finished
            self._since = now
            self._finished = 0

    @property
    def seconds_each(self) -> float:
        """What each takes, as far as is known."""
        return max(self._least_seconds, self._measured_seconds)

    @property
    def share_used(self) -> float:
        """How much of what is allowed is used, from 0 to 1; 0 while it is not known."""
        return min(1.0, self._least_seconds / self._measured_seconds) if self._measured_seconds else 0.0

    def wait_seconds(self, waiting: int, now: float) -> float:
        """How long one more would wait behind so many; at least as long as nothing was served already."""
        return max(waiting * self.seconds_each, now - self._finished_at) if waiting else 0.0
