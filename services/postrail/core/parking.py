"""For how long a delivery is parked that its site cannot take now: until its turn, those parked before it counted.

Owns that arithmetic. Time is an argument. `postrail.sender.site_queue` has one for each queue; in which tier of the log a
delivery then waits is decided by `postrail.core.retry`.
"""

from __future__ import annotations


class Parking:
    """The line of those parked for one site.

    Args:
        patience_seconds: what a delivery waits in the shortest tier anyway.
    """

    __slots__ = ("_free_at", "_patience_seconds")

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._free_at = 0.0

    def behind(self, queue_seconds: float, each_seconds: float, now: float) -> float:
        """Join the line of a site that is slow; returns how long until one's turn, in seconds.

        Args:
            queue_seconds: what the site needs for those that are not parked.
            each_seconds: what it needs for one.
            now: seconds of any steady clock.
        """
        self._free_at = max(self._free_at, now + queue_seconds) + each_seconds
        return self._free_at - now

    def blocked(self, blocked_seconds: float, each_seconds: float, now: float) -> float:
        """Join the line of a site that is left alone for `blocked_seconds`; returns for how long to park.

        Only as long as the site is left alone, while those in front can be sent soon after that; otherwise until one's turn. So a
        long line is spread over the tiers, and not all of it is looked at anew each time that a site which is down is tried.
        """
        turn_seconds = self.behind(blocked_seconds, each_seconds, now)
        return turn_seconds if turn_seconds - blocked_seconds > self._patience_seconds else blocked_seconds
