"""Recognises records of one partition that were taken up or finished before, so that no delivery is sent for them again.

Owns that memory: the names of hand-overs (`core.identity.hand_over`) that were taken up here or that the outcomes topic tells
of, the offsets that it tells of, and the recipients that ended (`core.identity.settlement`) with a record that a predecessor
may have begun: it may have recorded a retry for them before it died. Bounded: names are forgotten in the order in which they
came. Only for logs that are not atomic; there a crash between an append and its commit leaves a record twice (docs/flow.md).
`intake` fills it, `service` asks.
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

    __slots__ = ("_begun", "_names", "_offsets", "_order")

    def __init__(self, offsets: Iterable[int] = (), names: Iterable[str] = ()) -> None:
        self._offsets = Offsets(offsets)
        self._order: deque[str] = deque()
        self._names: set[str] = set()
        self._begun: dict[str, int] = {}
        for name in names:
            self.is_first(name)

    def is_finished(self, offset: int) -> bool:
        """Whether the outcome of this very record is durable."""
        return offset in self._offsets

    @property
    def has_begun(self) -> bool:
        """Whether a record that a predecessor may have begun has led to nothing yet but parking."""
        return bool(self._begun)

    def begin(self, recipient: str, attempts: int) -> None:
        """A record that a predecessor may have begun is taken up, with so many attempts before it, for this recipient."""
        self._begun[recipient] = attempts
        if len(self._begun) > MAX_NAMES:
            del self._begun[next(iter(self._begun))]

    def put_off(self, recipient: str) -> None:
        """Its attempt was made; there is a retry for it."""
        self._begun.pop(recipient, None)

    def end(self, recipient: str) -> None:
        """It was delivered or returned."""
        self._begun.pop(recipient, None)
        self.is_first(recipient)

    def is_superseded(self, recipient: str, attempts: int) -> bool:
        """Whether a retry after so many attempts is not needed: an attempt before it is made again, or has ended so."""
        return recipient in self._names or self._begun.get(recipient, attempts) < attempts

    def is_first(self, name: str) -> bool:
        """Whether this hand-over was never taken up, as far as is remembered; from now on it was."""
        if name in self._names:
            return False
        self._names.add(name)
        self._order.append(name)
        if len(self._order) > MAX_NAMES:
            self._names.discard(self._order.popleft())
        return True
