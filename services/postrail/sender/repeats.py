"""Recognises records of one partition that were taken up or finished before, so that no delivery is sent for them again.

Owns that memory: the names of hand-overs (`core.identity.hand_over`) that were taken up here or that the outcomes topic tells
of, and the offsets that it tells of. Bounded: names are forgotten in the order in which they came. Only for logs that are not
atomic; there a crash between an append and its commit leaves a record twice (docs/flow.md). `intake` fills it, `service` asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MAX_NAMES = 50_000
"""What one partition remembers: more than comes in while a stage that died is replaced. About 7 MB."""


class Offsets:
    """A set of offsets that lie near each other: a bit each."""

    __slots__ = ("_base", "_bits")

    def __init__(self, offsets: Iterable[int] = ()) -> None:
        known = list(offsets)
        self._base = min(known, default=0)
        self._bits = bytearray((max(known) - self._base) // 8 + 1 if known else 0)
        for offset in known:
            distance = offset - self._base
            self._bits[distance >> 3] |= 1 << (distance & 7)

    def __contains__(self, offset: int) -> bool:
        distance = offset - self._base
        return 0 <= distance >> 3 < len(self._bits) and bool(self._bits[distance >> 3] >> (distance & 7) & 1)


class Repeats:
    """What is known of one partition.

    Args:
        offsets: records whose outcome is durable although the commit does not say so.
        names: hand-overs that are finished, oldest first.
    """

    __slots__ = ("_names", "_offsets", "_order")

    def __init__(self, offsets: Iterable[int] = (), names: Iterable[str] = ()) -> None:
        self._offsets = Offsets(offsets)
        self._order: deque[str] = deque()
        self._names: set[str] = set()
        for name in names:
            self.is_first(name)

    def is_finished(self, offset: int) -> bool:
        """Whether the outcome of this very record is durable."""
        return offset in self._offsets

    def is_first(self, name: str) -> bool:
        """Whether this hand-over was never taken up, as far as is remembered; from now on it was."""
        if name in self._names:
            return False
        self._names.add(name)
        self._order.append(name)
        if len(self._order) > MAX_NAMES:
            self._names.discard(self._order.popleft())
        return True
