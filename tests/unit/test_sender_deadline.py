"""A deadline that is set anew passes once, at its last time, and not when it was cleared."""

from __future__ import annotations

import pytest

from postrail.sender.deadline import Deadline
from tests.support.hand_loop import HandLoop


@pytest.fixture
def loop() -> HandLoop:
    return HandLoop()


@pytest.fixture
def passed() -> list[float]:
    return []


@pytest.fixture
def deadline(loop: HandLoop, passed: list[float]) -> Deadline:
    return Deadline(loop.as_loop, lambda: passed.append(loop.now))


def test_it_passes_once(loop: HandLoop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(5)
    loop.until(104.9)
    assert passed == []
    loop.until(200)
    assert passed == [105]


def test_set_later_it_passes_at_the_last_time_with_one_timer_moved(
    loop: HandLoop, deadline: Deadline, passed: list[float]
) -> None:
    for _ in range(4):
        deadline.set(5)
        loop.until(loop.now + 1)
    assert len(loop.made) == 1
    loop.until(200)
    assert passed == [108]
    assert len(loop.made) == 2


def test_set_sooner_it_passes_sooner(loop: HandLoop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(60)
    deadline.set(1)
    loop.until(200)
    assert passed == [101]


def test_cleared_it_does_not_pass_until_it_is_set_again(
    loop: HandLoop, deadline: Deadline, passed: list[float]
) -> None:
    deadline.set(5)
    deadline.clear()
    loop.until(110)
    assert passed == []
    deadline.set(5)
    loop.until(200)
    assert passed == [115]


def test_cancelled_it_leaves_no_timer(loop: HandLoop, deadline: Deadline, passed: list[float]) -> None:
    deadline.set(5)
    deadline.cancel()
    loop.until(200)
    assert passed == []
    assert all(timer.cancelled for timer in loop.made)
