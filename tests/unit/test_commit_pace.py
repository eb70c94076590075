"""A write group starts at once for a lone caller; under load when the loop is idle, and within its two bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

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

BUSY_ROUND_SECONDS = 0.001


class Handle:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The part of an event loop that a pace uses; its clock moves by rounds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.handles: list[Handle] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Handle:
        self.handles.append(Handle(self.now + seconds, call))
        return self.handles[-1]

    def call_soon(self, call: Callable[[], None]) -> Handle:
        return self.call_later(0.0, call)

    def round(self, seconds: float) -> None:
        """One round, which takes so long before what is due is called."""
        self.now += seconds
        due = [handle for handle in self.handles if handle.at <= self.now and not handle.cancelled]
        self.handles = [handle for handle in self.handles if handle not in due]
        for handle in due:
            handle.call()


class Groups:
    """A pace, and when it last started a group."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.pace = Pace(cast("asyncio.AbstractEventLoop", self.loop), self._start, self.loop.clock)
        self.is_started = False

    def _start(self) -> None:
        self.is_started = True

    def starts_after(self, *, load: float, round_seconds: float, waiting: int = 1) -> float:
        """Seconds from one group, after which there was this share of a full load, to the start of the next one.

        Each round of the loop takes so long.
        """
        self.loop.now += LOAD_WINDOW_SECONDS
        self.pace.started(round(load * FULL_LOAD_RECORDS_PER_SECOND * (self.loop.now - self.pace.started_at)))
        self.pace.plan(waiting)
        while not self.is_started:
            self.loop.round(round_seconds)
        return self.loop.now - self.pace.started_at


@pytest.fixture
def groups() -> Groups:
    groups = Groups()
    groups.loop.now = LOAD_WINDOW_SECONDS
    return groups


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
    groups.loop.now += LOAD_WINDOW_SECONDS
    groups.pace.started(int(FULL_LOAD_RECORDS_PER_SECOND))
    groups.pace.plan(1)
    groups.loop.round(EARLIEST_SECONDS + BUSY_ROUND_SECONDS)
    assert not groups.is_started
    groups.pace.plan(MANY_WAITING)
    groups.loop.round(BUSY_ROUND_SECONDS)
    assert groups.is_started


def test_the_loop_becomes_idle(groups: Groups) -> None:
    groups.loop.now += LOAD_WINDOW_SECONDS
    groups.pace.started(int(FULL_LOAD_RECORDS_PER_SECOND))
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
