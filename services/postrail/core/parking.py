"""For how long a delivery is parked that its site cannot take now: until its turn, those parked before it counted.

Owns that arithmetic. Time is an argument. `postrail.sender.site_queue` has one for each queue; in which tier of the log a
delivery then waits is decided by `postrail.core.retry`.
"""

from __future__ import annotations


class Parking:
    """The line of those parked for one site.

    Args:
        return_seconds: what lies at least between two that come back to a site that was left alone, whatever its limits allow: it
            may well be down still, and then each of them goes the whole way for nothing, beside other sites' mail.
    """

    __slots__ = ("_free_at", "_return_seconds")

    def __init__(self, return_seconds: float) -> None:
        self._free_at = 0.0
        self._return_seconds = return_seconds

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

        One's turn comes after that, at the pace of the line. So a site that is down meets, each time that it is tried, those
        whose turn it is, and not all that waits.
        """
        return self.behind(blocked_seconds, max(each_seconds, self._return_seconds), now)
