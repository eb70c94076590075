"""A deadline that is set anew passes once, at its last time, and not when it was cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from postrail.sender.deadline import Deadline


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The part of an event loop that a deadline uses, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        self.made.append(Timer(at, call))
        return self.made[-1]

    def until(self, now: float) -> None:
        """Let the time come, with all timers that are due by then."""
        while due := [timer for timer in self.made if not timer.cancelled and timer.at <= now]:
            first = min(due, key=lambda timer: timer.at)
            first.cancelled = True
            self.now = max(self.now, first.at)
            first.call()
        self.now = now


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def passed() -> list[float]:
    return []


@pytest.fixture
def deadline(loop: Loop, passed: list[float]) -> Deadline:
    return Deadline(cast("asyncio.AbstractEventLoop", loop), lambda: passed.append(loop.now))


def test_it_passes_once(loop: Loop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(5)
    loop.until(104.9)
    assert passed == []
    loop.until(200)
    assert passed == [105]


def test_set_later_it_passes_at_the_last_time_with_one_timer_moved(
    loop: Loop, deadline: Deadline, passed: list[float]
) -> None:
    for _ in range(4):
        deadline.set(5)
        loop.until(loop.now + 1)
    assert len(loop.made) == 1
    loop.until(200)
    assert passed == [108]
    assert len(loop.made) == 2


def test_set_sooner_it_passes_sooner(loop: Loop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(60)
    deadline.set(1)
    loop.until(200)
    assert passed == [101]


def test_cleared_it_does_not_pass_until_it_is_set_again(loop: Loop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(5)
    deadline.clear()
    loop.until(110)
    assert passed == []
    deadline.set(5)
    loop.until(200)
    assert passed == [115]


def test_cancelled_it_leaves_no_timer(loop: Loop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(5)
    deadline.cancel()
    loop.until(200)
    assert passed == []
    assert all(timer.cancelled for timer in loop.made)
