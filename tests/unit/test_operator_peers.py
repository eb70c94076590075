"""Of several operators one acts; settings are read or refused; figures and problems are counted."""

from datetime import UTC, datetime
from typing import Any

import pytest

from postrail_operator.metrics import problems
from postrail_operator.peers import acts
from postrail_operator.prometheus import MetricsError, figures, read_answer, waited
from postrail_operator.settings import SettingsError, read_settings

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def peering(**peers: tuple[int, str]) -> dict[str, Any]:
    entries = {
        name: {"priority": priority, "lifetime": 60, "lastseen": seen} for name, (priority, seen) in peers.items()
    }
    return {"status": entries}


FRESH, OLD = "2026-11-22T11:59:30+00:00", "2026-11-22T11:58:00+00:00"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, True),
        ({}, True),
        (peering(me=(5, FRESH)), True),
        (peering(me=(5, FRESH), other=(4, FRESH)), True),
        (peering(me=(5, FRESH), other=(6, FRESH)), False),
        (peering(me=(5, FRESH), other=(6, OLD)), True),
        (peering(me=(5, FRESH), other=(5, FRESH)), False),
        (peering(me=(5, FRESH), another=(5, FRESH)), True),
        (peering(other=(6, "yesterday")), True),
    ],
)
def test_highest_live_priority_acts(found: dict[str, Any] | None, expected: bool) -> None:
    assert acts(found, "me", 5, NOW) is expected


def test_of_two_never_both_and_never_none_act() -> None:
    for mine, theirs in ((1, 2), (2, 1), (3, 3)):
        both = peering(a=(mine, FRESH), b=(theirs, FRESH))
        assert acts(both, "a", mine, NOW) != acts(both, "b", theirs, NOW)


ENVIRONMENT = {"POSTRAIL_NAMESPACE": "mail", "POSTRAIL_RELEASE": "postrail"}


def test_settings_come_from_the_environment() -> None:
    settings = read_settings(
        {**ENVIRONMENT, "POSTRAIL_PROMETHEUS_URL": "", "POSTRAIL_KEDA": "false", "POSTRAIL_PORT": "9000"}
    )
    assert (settings.namespace, settings.senders_namespace, settings.release) == ("mail", "mail", "postrail")
    assert (settings.keda, settings.port, settings.prometheus_url) == (False, 9000, "")
    assert not settings.direct_elsewhere


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"POSTRAIL_NAMESPACE": ""}, "POSTRAIL_NAMESPACE is not set"),
        ({"POSTRAIL_RELEASE": ""}, "POSTRAIL_RELEASE is not set"),
        ({"POSTRAIL_PORT": "http"}, "'http', which is no port"),
        ({"POSTRAIL_KEDA": "yes"}, "write true or false"),
    ],
)
def test_wrong_setting_is_named(more: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_settings({**ENVIRONMENT, **more})


def test_figures_are_put_together_by_pool_and_group() -> None:
    key = ("fast", "gmail")
    answers = {
        "senders": {key: 2.0},
        "eligible": {key: 10.0},
        "drain": {key: float("inf")},
        "limits": {key: float("nan")},
    }
    (one,) = figures(answers)["fast"]
    assert (one.group, one.senders, one.eligible, one.drain_seconds, one.limits_used) == (
        "gmail",
        2,
        10,
        float("inf"),
        0.0,
    )


def test_window_that_is_not_known_tells_nothing() -> None:
    most = {("a", ""): 0.0, ("b", ""): 7.0, ("c", ""): 0.0}
    assert waited(most, {("a", ""): 1000.0, ("b", ""): 990.0, ("c", ""): 500.0}, 1000.0) == {"a": 0, "b": 7}


@pytest.mark.parametrize(
    "answer", [{}, {"status": "error", "error": "bad query"}, {"status": "success", "data": {"result": [{}]}}]
)
def test_other_answer_than_a_vector_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(MetricsError):
        read_answer(answer)


def test_problems_are_counted_by_object_and_address() -> None:
    address = {"conditions": [{"type": "Listed", "status": "True", "reason": "CheckFailed"}]}
    clean = {"conditions": [{"type": "Listed", "status": "False", "reason": "CheckPassed"}]}
    unknown = {"conditions": [{"type": "PTRValid", "status": "Unknown", "reason": "NotChecked"}]}
    status = {
        "conditions": [{"type": "Accepted", "status": "False", "reason": "AddressTaken"}],
        "addresses": [address, address, clean, unknown],
    }
    assert problems([("IPPool", status), ("SenderPool", {"conditions": []})]) == {
        ("IPPool", "Accepted", "AddressTaken"): 1,
        ("IPPool", "Listed", "CheckFailed"): 2,
    }
