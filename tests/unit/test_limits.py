"""Limits merge from wide to narrow, and rates are never exceeded in any window."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.delivery_config import DeliveryConfig
from postrail.core.limits import DEFAULT_LIMITS, Limits, Pace, connection_pace, limits_for, message_pace

ONE, OTHER = "192.0.2.1", "192.0.2.2"


def limits(source: str = ONE, site: str = "mx.example.com", domain: str = "example.com", **config: Any) -> Limits:
    return limits_for(DeliveryConfig.model_validate(config), source, site, domain)


def test_the_starting_profiles() -> None:
    assert limits() == Limits(10, 100, 100.0, 100.0, tls_required=False)
    assert limits(site="gmail") == Limits(5, 50, 100.0, 100.0, tls_required=True)
    assert limits(site="yahoo").messages_per_connection == 20
    assert (limits(site="microsoft").connections, limits(site="microsoft").messages_per_connection) == (5, 50)
    assert (limits(site="apple").connections, limits(site="apple").messages_per_connection) == (10, 5)
    assert (limits(site="comcast").connections, limits(site="comcast").messages_per_connection) == (25, 1000)
    assert limits(site="orange").connections == 2


def test_the_narrower_rule_wins() -> None:
    config: dict[str, Any] = {
        "default_limits": {"connections": 1, "messages_per_second": 1},
        "provider_limits": {"gmail": {"connections": 2}},
        "site_limits": {"gmail": {"connections": 3}},
        "domain_limits": {"example.com": {"connections": 4}},
    }
    assert limits(site="gmail", **config).connections == 4
    assert limits(site="gmail", domain="x.example", **config).connections == 3
    assert limits(site="gmail", **config).messages_per_second == 1
    assert limits(site="gmail", **config).messages_per_connection == 50, "the profile stands where nothing else is said"
    assert limits(domain="x.example", **config).connections == 1


def test_a_site_is_suspended_for_all_sources_or_for_one() -> None:
    config: dict[str, Any] = {
        "default_limits": {"suspend": True},
        "provider_limits": {"gmail": {"suspend": False, "sources": {OTHER: {"suspend": True}}}},
    }
    assert not limits().suspend
    assert limits(**config).suspend
    assert not limits(site="gmail", **config).suspend
    assert limits(OTHER, site="gmail", **config).suspend


def test_one_source_wins_over_all_at_its_level_and_loses_to_the_next() -> None:
    config: dict[str, Any] = {
        "default_limits": {"connections": 1, "sources": {ONE: {"connections": 2}}},
        "site_limits": {"busy": {"connections": 3, "sources": {ONE: {"messages_per_second": 7}}}},
    }
    assert limits(ONE, **config).connections == 2
    assert limits(OTHER, **config).connections == 1
    assert limits(ONE, site="busy", **config).connections == 3
    assert limits(ONE, site="busy", **config).messages_per_second == 7
    assert limits(OTHER, site="busy", **config).messages_per_second == 100


@given(
    st.sampled_from([1.0, 2.0, 5.0, 10.0, 15.0, 100.0, 250.0]),
    st.sampled_from([1.0, 60.0]),
    st.lists(st.floats(0, 0.7), min_size=1, max_size=400),
)
def test_no_window_holds_more_than_the_limit(events: float, window: float, pauses: list[float]) -> None:
    pace, now = Pace(events, window), 100.0
    taken: list[float] = []
    for pause in pauses:
        now += pause * window
        while len(taken) < 2000 and pace.wait_seconds(now) == 0:
            pace.take(now)
            taken.append(now)
        now += pace.wait_seconds(now)
    for index, start in enumerate(taken):
        # An event exactly one window later is outside; a hair is left for rounding.
        inside = sum(1 for at in taken[index : index + 600] if at < start + window * (1 - 1e-9))
        assert inside <= events


@pytest.mark.parametrize("events", [1.0, 7.0, 100.0, 1000.0])
def test_a_long_run_reaches_nine_tenths_of_the_limit(events: float) -> None:
    pace, now, count = Pace(events, 1.0), 0.0, 0
    while now < 20.0:
        now += pace.wait_seconds(now)
        pace.take(now)
        count += 1
    assert count / 20.0 >= 0.9 * events


def test_rates_below_one() -> None:
    pace = Pace(0.5, 1.0)
    pace.take(10.0)
    assert pace.wait_seconds(10.0) == pytest.approx(2.0)


def test_processes_share_the_rates() -> None:
    message, connection = message_pace(DEFAULT_LIMITS, 4), connection_pace(DEFAULT_LIMITS, 4)
    for pace, window in ((message, 1.0), (connection, 60.0)):
        count, now = 0, 0.0
        while now < window * 0.999:
            pace.take(now)
            count += 1
            now += pace.wait_seconds(now)
        assert count <= 25


@given(st.integers(1, 200), st.floats(0.0, 3.0))
def test_owners_that_follow_each_other_exceed_the_limit_by_one_at_most(events: int, switch: float) -> None:
    times: list[float] = []
    for start, end, fresh in ((0.0, switch, False), (switch, switch + 1.5, True)):
        pace = Pace(events, 1.0)
        if fresh:
            pace.start_empty(start)
        now = start + pace.wait_seconds(start)
        while now < end:
            pace.take(now)
            times.append(now)
            now += max(pace.wait_seconds(now), 1e-9)
    most = max((sum(1 for at in times if start <= at < start + 1.0 - 1e-6) for start in times), default=0)
    assert most <= events + 1
