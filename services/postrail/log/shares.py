"""How a poll is shared among topics: earlier ones first, later ones never starved. Pure; both logs' consumers use it.

A later topic with records is owed a fifth of each poll (less when there are many); what it did not get is carried over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postrail.log.interface import Record

LATER_TOPICS_SHARE = 0.2


class Shares:
    """What the topics of one consumer are owed. `topics` in order of preference."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._owed: dict[str, float] = dict.fromkeys(topics[1:], 0.0)

    def take(self, ready: Sequence[str], max_records: int, take: Callable[[str, int], list[Record]]) -> list[Record]:
        """Records of the `ready` topics (in order of preference), `max_records` of them at most.

        Args:
            take: gives at most so many records of a topic.
        """
        reserved = self._reserve(ready[1:], max_records) if len(ready) > 1 else {}
        taken: list[Record] = []
        left, kept = max_records, sum(reserved.values())
        for topic in ready:
            kept -= reserved.get(topic, 0)
            found = take(topic, left - kept)
            if topic in reserved:
                self._owed[topic] = max(0.0, self._owed[topic] - len(found))
            left -= len(found)
            taken += found
            if left <= 0:
                break
        return taken

    def _reserve(self, later: Sequence[str], max_records: int) -> dict[str, int]:
        """How many records each later topic with records is due, so that together they leave room for the first."""
        share = min(LATER_TOPICS_SHARE, 1 / (len(later) + 1)) * max_records
        reserved, free = {}, max_records
        for topic in later:
            owed = self._owed[topic] = min(self._owed.get(topic, 0.0) + share, float(max_records))
            reserved[topic] = min(free, int(owed + 1e-9))
            free -= reserved[topic]
        return reserved
