"""Quarantine: by people, by automation where the pool asks for it, never of the last address, ended only by what is certain."""

from typing import Any

import pytest

from postrail.core.conditions import Condition, ConditionType, Reason, Truth
from postrail_operator.compose import compose
from postrail_operator.leases import State
from postrail_operator.quarantines import ANNOTATION, AUTOMATION, Candidate, Decision, decide
from tests.support.kubernetes_objects import BASE, ip_pool, read, sender_pool

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
AUTOMATIC = {"quarantine": "automatic"}
WELL = {
    ConditionType.LISTED: (Truth.FALSE, Reason.NOT_LISTED),
    ConditionType.PLUMBED: (Truth.TRUE, Reason.VERIFIED),
    ConditionType.SOURCE_VERIFIED: (Truth.TRUE, Reason.VERIFIED),
}
LISTED = {ConditionType.LISTED: (Truth.TRUE, Reason.LISTED)}
UNANSWERED = {ConditionType.LISTED: (Truth.UNKNOWN, Reason.DNS_FAILED)}
ABSENT = {ConditionType.PLUMBED: (Truth.FALSE, Reason.NOT_ON_THIS_MACHINE)}
SILENT = {
    ConditionType.PLUMBED: (Truth.UNKNOWN, Reason.NO_REPORT),
    ConditionType.SOURCE_VERIFIED: (Truth.UNKNOWN, Reason.NO_REPORT),
}
NO_PROXY = {ConditionType.PLUMBED: (Truth.FALSE, Reason.PROXY_FAILED)}
ELSEWHERE = {ConditionType.SOURCE_VERIFIED: (Truth.FALSE, Reason.OTHER_SOURCE)}
NEW = {ConditionType.SOURCE_VERIFIED: (Truth.UNKNOWN, Reason.NO_CONNECTION)}


def candidate(address: str, found: Any = None, cause: Reason | None = None, weight: int = 100) -> Candidate:
    findings = [Condition(kind, what[0], what[1], "text") for kind, what in {**WELL, **(found or {})}.items()]
    return Candidate(address, weight, findings, {"by": AUTOMATION, "cause": cause} if cause else {})


def decided(*candidates: Candidate, **more: Any) -> dict[str, Decision]:
    (item,) = read(ip_pool("i", *(one.address for one in candidates), **more)).ip_pools
    return decide(item, candidates)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (LISTED, Reason.LISTED),
        (ABSENT, Reason.NOT_ON_THIS_MACHINE),
        (ELSEWHERE, Reason.OTHER_SOURCE),
        (UNANSWERED, None),
        (SILENT, None),
        (NO_PROXY, None),
        (NEW, None),
    ],
)
def test_automation_acts_on_what_is_certain_where_the_pool_asks_for_it(found: Any, cause: Reason | None) -> None:
    by = AUTOMATION if cause else ""
    assert decided(candidate(A, found), candidate(B), spec=AUTOMATIC)[A] == Decision(by, cause)
    assert decided(candidate(A, found), candidate(B))[A] == Decision(), "the default is by hand"


@pytest.mark.parametrize(
    ("cause", "found", "stays"),
    [
        (Reason.LISTED, UNANSWERED, True),
        (Reason.LISTED, {}, False),
        (Reason.LISTED, SILENT, False),
        (Reason.NOT_ON_THIS_MACHINE, SILENT, True),
        (Reason.NOT_ON_THIS_MACHINE, NEW, False),
        (Reason.OTHER_SOURCE, NEW, True),
        (Reason.OTHER_SOURCE, SILENT, True),
        (Reason.OTHER_SOURCE, {}, False),
    ],
)
def test_quarantine_ends_only_by_what_is_certain(cause: Reason, found: Any, stays: bool) -> None:
    expected = Decision(AUTOMATION, cause) if stays else Decision()
    assert decided(candidate(A, found, cause), candidate(B), spec=AUTOMATIC)[A] == expected


def test_automation_leaves_one_address_in_use() -> None:
    found = decided(candidate(A, LISTED), candidate(B, LISTED), candidate(C, LISTED), spec=AUTOMATIC)
    assert [found[one].by for one in (A, B, C)] == [AUTOMATION, AUTOMATION, ""]
    assert found[C].condition.reason is Reason.LAST_ADDRESS
    kept = decided(candidate(A, LISTED), candidate(B, LISTED, Reason.LISTED), spec=AUTOMATIC)
    assert [kept[one].by for one in (A, B)] == ["", AUTOMATION], "who is in quarantine stays there"


def test_address_of_weight_0_does_not_count_as_in_use() -> None:
    assert decided(candidate(A, LISTED), candidate(B, weight=0), spec=AUTOMATIC)[A].by == ""


def test_people_may_take_all_addresses() -> None:
    found = decided(candidate(A), candidate(B), annotations={"postrail.io/quarantine": "*"}, spec=AUTOMATIC)
    assert {one.by for one in found.values()} == {ANNOTATION}


def held(address: str, **more: Any) -> dict[str, Any]:
    entry = {"address": address, "ehlo": "out.example.com", "state": "Quarantined", "leasedTo": "p", **more}
    return {"addresses": [entry], "usedBy": "p"}


BY_AUTOMATION = {"quarantine": {"by": "automation", "since": "2026-11-22T12:00:00Z", "cause": "Listed"}}


def state(*bodies: Any, drained: frozenset[str] = frozenset()) -> tuple[Any, Any]:
    made = compose(BASE, read(*bodies, sender_pool("p", "s", "i")), drained)
    weights = {one["address"]: one["weight"] for one in made.config["pools"]["p"]["sources"]} if made.config else {}
    return {lease.address.address: lease.state for lease in made.leases}, weights


def test_what_automation_decided_counts_at_the_next_look_and_after_a_restart() -> None:
    states, weights = state(ip_pool("i", A, B, status=held(A, **BY_AUTOMATION), spec=AUTOMATIC))
    assert (states[A], states[B]) == (State.QUARANTINED, State.ACTIVE)
    assert weights == {A: 0, B: 100}
    states, weights = state(ip_pool("i", A, B, status=held(A, **BY_AUTOMATION)))
    assert weights == {A: 100, B: 100}, "the pool asks for automation no more"


def test_quarantined_address_that_leaves_the_pool_is_released_only_after_its_queue_is_empty() -> None:
    states, weights = state(ip_pool("i", B, status=held(A, **BY_AUTOMATION), spec=AUTOMATIC), ip_pool("j", A))
    assert states[A] is State.TAKEN, "no other pool gets it"
    assert weights == {A: 0, B: 100}
    draining = held(A, **{**BY_AUTOMATION, "state": "Draining"})
    states, weights = state(ip_pool("i", B, status=draining, spec=AUTOMATIC), ip_pool("j", A), drained=frozenset({"p"}))
    assert weights == {B: 100}
    assert states[A] is State.IDLE, "the other pool has it now"
