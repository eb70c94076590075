"""Scaling: by what could be sent now, never beyond what is of use, and not with every gust."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.config import Config
from postrail.core.kind_specs import AutoscalingSpec
from postrail_operator.scaling import Figures, Stabiliser, needed, query, useful, wanted
from tests.support.kubernetes_objects import BASE

SPEC = AutoscalingSpec(min_replicas=1, max_replicas=8, target_drain_seconds=60)


def figures(
    senders: int = 2, eligible: int = 100, drain: float = 60, limits: float = 0.1, processor: float = 0.1
) -> Figures:
    return Figures("default", senders, eligible, drain, limits, processor)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (figures(), 2),
        (figures(drain=90), 3),
        (figures(drain=math.inf), 4),
        (figures(drain=6), 1),
        (figures(eligible=0, drain=0), 1),
        (figures(eligible=0, drain=0, processor=1.6), 3),
        (figures(drain=600, limits=0.9), 2),
        (figures(senders=0, eligible=0), 1),
        (figures(drain=10, processor=1.9), 3),
    ],
    ids=["in time", "too slow", "stuck", "too many", "idle", "busy", "limits used up", "none told", "busy in time"],
)
def test_need_follows_what_could_be_sent_now(measured: Figures, expected: int) -> None:
    assert needed(measured, SPEC) == expected


def test_neediest_group_decides_within_the_bounds() -> None:
    groups = [figures(senders=4, drain=6), figures(senders=4, drain=600)]
    assert wanted(groups, SPEC, most=20) == 8
    assert wanted(groups, SPEC, most=3) == 3
    assert wanted([], AutoscalingSpec(min_replicas=2), most=12) == 2
    assert wanted([], AutoscalingSpec(min_replicas=5), most=3) == 3


def test_senders_come_when_needed_for_a_while() -> None:
    stabiliser = Stabiliser(AutoscalingSpec(scale_up_stabilisation_seconds=30, scale_down_stabilisation_seconds=300))
    decided = [stabiliser.decide(1, want, now) for now, want in ((0, 4), (10, 3), (20, 4), (29, 4), (30, 4))]
    assert decided == [1, 1, 1, 1, 3]


def test_gust_adds_nobody() -> None:
    stabiliser = Stabiliser(AutoscalingSpec(scale_up_stabilisation_seconds=30))
    assert [stabiliser.decide(1, want, now) for now, want in ((0, 1), (30, 9), (45, 1), (60, 9), (75, 1))] == [1] * 5


def test_senders_go_when_not_needed_for_the_whole_window() -> None:
    stabiliser = Stabiliser(AutoscalingSpec(scale_up_stabilisation_seconds=0, scale_down_stabilisation_seconds=300))
    assert stabiliser.decide(4, 4, 0) == 4
    assert stabiliser.decide(4, 1, 100) == 4
    assert stabiliser.decide(4, 2, 250) == 4
    assert stabiliser.decide(4, 1, 320) == 2
    assert stabiliser.decide(2, 1, 560) == 1


def test_restarted_operator_takes_nobody_away_before_it_has_watched() -> None:
    stabiliser = Stabiliser(AutoscalingSpec(scale_down_stabilisation_seconds=300))
    assert stabiliser.decide(6, 1, 1_000_000) == 6
    assert stabiliser.decide(6, 1, 1_000_299) == 6
    assert stabiliser.decide(6, 1, 1_000_300) == 1


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 9)), max_size=30), st.integers(1, 9))
def test_decision_is_never_beyond_what_was_wanted(steps: list[tuple[float, int]], start: int) -> None:
    stabiliser, now, current = Stabiliser(AutoscalingSpec()), 0.0, start
    seen = [start]
    for after, want in steps:
        now += after
        seen.append(want)
        current = stabiliser.decide(current, want, now)
        assert min(seen) <= current <= max(seen)


def config(addresses: int, partitions: int = 6) -> Config:
    sources = [{"address": f"192.0.2.{n + 1}", "ehlo": "out.example.com"} for n in range(addresses)]
    log = {"kind": "kafka", "kafka": {**BASE["log"]["kafka"], "partitions": partitions}}
    return Config.model_validate({**BASE, "log": log, "pools": {"a": {"sources": sources}}, "streams": {}})


@pytest.mark.parametrize(
    ("addresses", "groups", "nodes", "expected"),
    [
        (3, ("default",), None, 6),
        (3, ("gmail",), None, 3),
        (8, ("gmail",), None, 6),
        (1, ("gmail", "default"), None, 6),
        (3, ("default",), 2, 2),
        (3, ("default",), 0, 0),
        (0, ("default",), None, 0),
    ],
)
def test_most_is_what_partitions_addresses_and_nodes_can_use(
    addresses: int, groups: tuple[str, ...], nodes: int | None, expected: int
) -> None:
    assert useful(config(addresses), "a", groups, nodes) == expected


def test_query_has_balanced_brackets_and_one_value() -> None:
    text = query("marketing", SPEC)
    assert text.count("(") == text.count(")")
    assert text.startswith("ceil(max(")
    assert 'pool="marketing"' in text
    assert "< 0.8" in text
