"""When each of many things is done next: at once when it is new, then again and again, none of them twice at the same time. Pure.

Owns the times. What is done is the matter of whoever takes a thing out (`checker`); time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Thing = TypeVar("Thing")
SPREAD = 0.2
"""A turn is up to this share of its time earlier or later, so that things that began together don't stay together."""


@dataclass(slots=True)
class Timetable(Generic[Thing]):
    """The turns of some things, in seconds of any steady clock."""

    _next: dict[Thing, float] = field(default_factory=dict)
    _taken: set[Thing] = field(default_factory=set)
    _turns: list[tuple[float, int, Thing]] = field(default_factory=list)
    """A heap; a turn that `_next` does not know is over."""
    _numbers: count[int] = field(default_factory=count)

    def __len__(self) -> int:
        return len(self._next)

    def want(self, things: frozenset[Thing], now: float) -> None:
        """These things, and no others, are to be done."""
        before, self._next = self._next, {}
        for thing in things:
            if thing in before:
                self._next[thing] = before[thing]
            else:
                self._give_turn(thing, now)

    def take(self, now: float) -> Thing | None:
        """The thing whose turn came first; None where it is nobody's turn."""
        turn = self._first()
        if turn is None or turn[0] > now:
            return None
        thing = heappop(self._turns)[2]
        self._taken.add(thing)
        return thing

    def done(self, thing: Thing, again_seconds: float, chance: float, now: float) -> None:
        """It is done; its next turn is about `again_seconds` from now.

        Args:
            chance: in [0, 1).
        """
        self._taken.discard(thing)
        if thing in self._next:
            self._give_turn(thing, now + again_seconds * (1 - SPREAD + 2 * SPREAD * chance))

    def wait_seconds(self, now: float, most: float) -> float:
        """How long it is nobody's turn, at most `most`."""
        turn = self._first()
        return most if turn is None else min(most, max(0.0, turn[0] - now))

    def _give_turn(self, thing: Thing, at: float) -> None:
        self._next[thing] = at
        heappush(self._turns, (at, next(self._numbers), thing))

    def _first(self) -> tuple[float, int, Thing] | None:
        """The first turn that counts."""
        while self._turns:
            at, _, thing = self._turns[0]
            if self._next.get(thing) == at and thing not in self._taken:
                return self._turns[0]
            heappop(self._turns)
        return None
