"""A write group starts at once for a lone caller; under load when the loop is idle, and within its two bounds."""

from __future__ import annotations

import pytest

from postrail.log.sqlite.pace import (
    EARLIEST_SECONDS,
    FULL_LOAD_RECORDS_PER_SECOND,
    IDLE_ROUND_SECONDS,
    LATEST_SECONDS,
    LOAD_WINDOW_SECONDS,
    MANY_WAITING,
    Pace,
)
from tests.support.hand_loop import HandLoop

BUSY_ROUND_SECONDS = 0.001


class Groups:
    """A pace, and when it last started a group."""

    def __init__(self) -> None:
        self.loop = HandLoop()
        self.pace = Pace(self.loop.as_loop, self._start, self.loop.time)
        self.is_started = False

    def _start(self) -> None:
        self.is_started = True

    def load(self, share: float) -> None:
        """A group starts now, and since the one before there was this share of a full load."""
        self.loop.now += LOAD_WINDOW_SECONDS
        self.pace.started(round(share * FULL_LOAD_RECORDS_PER_SECOND * (self.loop.now - self.pace.started_at)))

    def starts_after(self, *, load: float, round_seconds: float, waiting: int = 1) -> float:
        """Seconds from one group, after which there was this share of a full load, to the start of the next one.

        Each round of the loop takes so long.
        """
        self.load(load)
        self.pace.plan(waiting)
        while not self.is_started:
            self.loop.round(round_seconds)
        return self.loop.now - self.pace.started_at


@pytest.fixture
def groups() -> Groups:
    return Groups()


def test_a_lone_caller_does_not_wait(groups: Groups) -> None:
    assert groups.starts_after(load=0.0, round_seconds=BUSY_ROUND_SECONDS) == pytest.approx(BUSY_ROUND_SECONDS)


def test_an_idle_loop_is_not_waited_for_but_groups_keep_their_distance(groups: Groups) -> None:
    after = groups.starts_after(load=1.0, round_seconds=IDLE_ROUND_SECONDS / 2)
    assert EARLIEST_SECONDS <= after < EARLIEST_SECONDS + 3 * IDLE_ROUND_SECONDS


@pytest.mark.parametrize("load", [1.0, 0.5, 0.1])
def test_a_busy_loop_goes_on_until_it_is_time(groups: Groups, load: float) -> None:
    latest = LATEST_SECONDS * load
    assert latest <= groups.starts_after(load=load, round_seconds=BUSY_ROUND_SECONDS) <= latest + 2 * BUSY_ROUND_SECONDS


def test_a_load_above_the_full_one_waits_no_longer(groups: Groups) -> None:
    after = groups.starts_after(load=7.0, round_seconds=BUSY_ROUND_SECONDS)
    assert after <= LATEST_SECONDS + 2 * BUSY_ROUND_SECONDS


def test_a_busy_loop_with_many_who_wait_is_not_waited_for(groups: Groups) -> None:
    after = groups.starts_after(load=1.0, round_seconds=BUSY_ROUND_SECONDS, waiting=MANY_WAITING)
    assert EARLIEST_SECONDS <= after <= EARLIEST_SECONDS + 2 * BUSY_ROUND_SECONDS


def test_many_who_come_later_hurry_a_planned_start(groups: Groups) -> None:
    groups.load(1.0)
    groups.pace.plan(1)
    groups.loop.round(EARLIEST_SECONDS + BUSY_ROUND_SECONDS)
    assert not groups.is_started
    groups.pace.plan(MANY_WAITING)
    groups.loop.round(BUSY_ROUND_SECONDS)
    assert groups.is_started


def test_the_loop_becomes_idle(groups: Groups) -> None:
    groups.load(1.0)
    groups.pace.plan(1)
    for _ in range(20):
        groups.loop.round(BUSY_ROUND_SECONDS)
    assert not groups.is_started
    groups.loop.round(IDLE_ROUND_SECONDS / 2)
    assert groups.is_started


def test_what_is_cancelled_does_not_start(groups: Groups) -> None:
    groups.pace.plan(1)
    groups.pace.cancel()
    groups.loop.round(1.0)
    assert not groups.is_started
