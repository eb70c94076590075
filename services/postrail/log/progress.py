"""Which offsets of one partition a group has finished: a low watermark and the finished offsets above it.

Owns that set and its encoding, which must fit a Kafka commit's metadata (4 KiB at most). Pure; both implementations and
the services use it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

from postrail.core.value import value

METADATA_LIMIT_BYTES = 4096
STOP_FETCHING_AT_BYTES = METADATA_LIMIT_BYTES * 3 // 4
SAFE_SPREAD = STOP_FETCHING_AT_BYTES * 6 - 256
"""Up to this spread the commit's metadata fits, whatever is finished: a bit a record, in base64."""


@value
class Progress:
    """All offsets below `low` are finished, and those in `above`, each of which is greater than `low`."""

    low: int
    above: frozenset[int] = frozenset()

    def includes(self, offset: int) -> bool:
        """Whether this offset is finished."""
        return offset < self.low or offset in self.above

    def metadata(self) -> str:
        """The finished offsets above the watermark as text: "" when there are none.

        A bitmap of the distances from `low`, deflated, in base64.
        """
        if not self.above:
            return ""
        bitmap = bytearray((max(self.above) - self.low) // 8 + 1)
        for offset in self.above:
            distance = offset - self.low
            bitmap[distance >> 3] |= 1 << (distance & 7)
        return base64.b64encode(zlib.compress(bytes(bitmap), 6)).decode("ascii")

    @classmethod
    def parse(cls, low: int, metadata: str) -> Progress:
        """The inverse of `metadata`.

        Raises:
            ValueError: the text is not what `metadata` writes.
        """
        if not metadata:
            return cls(low)
        try:
            bitmap = zlib.decompress(base64.b64decode(metadata, validate=True))
        except (ValueError, zlib.error) as error:
            raise ValueError(f"commit metadata cannot be read: {error}") from error
        above = frozenset(
            low + (index << 3) + bit for index, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1
        )
        return cls(low, above)


class Tracker:
    """Follows one partition's records from delivery to finish, in any order.

    `start(offset)` when a record is taken up, in offset order; `finish(offset)` when its outcome is known. Gaps (records
    that were trimmed) are passed over, because only started offsets hold the watermark back. What was committed before this
    tracker took the partition over stays finished.
    """

    __slots__ = ("_done", "_next", "_open", "low")

    def __init__(self, low: int, above: Iterable[int] = ()) -> None:
        """Go on from a committed progress: all offsets below `low` are finished, and those in `above`."""
        self.low = low
        self._open: dict[int, None] = {}
        self._done = set(above)
        self._next = -1

    def start(self, offset: int) -> None:
        """Take up a record; offsets only grow."""
        self._open[offset] = None
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """A record's outcome is settled. Finishing twice is harmless."""
        if offset not in self._open:
            return
        del self._open[offset]
        first = next(iter(self._open), None)
        if first is None:
            self.low = max(self.low, self._next)
        elif offset > first:
            self._done.add(offset)
        else:
            self.low = first

    @property
    def in_flight(self) -> int:
        """Records started and not finished."""
        return len(self._open)

    @property
    def spread(self) -> int:
        """Distance from the watermark to the newest record taken up; what bounds the metadata's size."""
        return max(0, self._next - self.low)

    def progress(self) -> Progress:
        """What can be committed now."""
        if self._done:
            while self.low in self._done:
                self.low += 1
            self._done = {done for done in self._done if done > self.low}
        return Progress(self.low, frozenset(self._done))
