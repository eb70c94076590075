"""Which addresses get no new mail: those that people name in the annotation, and those that automation takes out of use. Pure.

What automation decides stands in the status of the IPPool, and counts from the next look on; so a restarted operator, or the one
that takes over, knows it. Automation acts where the pool's spec asks for it, on what is certain only, and leaves one address in
use: a pool without any would stop the mail of all its submitters, and that is for a person to decide. Neighbours: `findings`
(what is known of an address), `leases` (a quarantined address stays leased, and what was given to it before still leaves).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postrail.core.annotations import QUARANTINE
from postrail.core.conditions import Condition, ConditionType, Reason, Truth
from postrail.core.kind_specs import IPPoolSpec, QuarantineMode
from postrail_operator.objects import Item

AUTOMATION = "automation"
ANNOTATION = "annotation"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address that mail may leave from, and what is known of it.

    Attributes:
        weight: 0 where it gets no new mail anyway.
        before: what the status says of its quarantine.
    """

    address: str
    weight: int
    findings: Sequence[Condition]
    before: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an address.

    Attributes:
        by: ANNOTATION, AUTOMATION, or "" where it is in use.
        cause: what automation found, also where it leaves the address in use because it is the last one.
    """

    by: str = ""
    cause: Reason | None = None

    @property
    def condition(self) -> Condition:
        """As the status shows it."""
        kind = ConditionType.QUARANTINED
        rest = "no new mail is given to it; what was given to it before still leaves"
        if self.by == ANNOTATION:
            return Condition(kind, Truth.TRUE, Reason.BY_ANNOTATION, f"the annotation {QUARANTINE} names it: {rest}")
        if self.by == AUTOMATION:
            text = f"{self.cause}: {rest}. It is given back when the check says that all is well, or with spec.quarantine: byHand"
            return Condition(kind, Truth.TRUE, Reason.BY_AUTOMATION, text)
        if self.cause is not None:
            text = f"{self.cause}, but its pool has no other address in use: add one, or take it out by the annotation"
            return Condition(kind, Truth.FALSE, Reason.LAST_ADDRESS, text)
        return Condition(kind, Truth.FALSE, Reason.NOT_QUARANTINED, "new mail is given to it as its weight says")


def named(item: Item[IPPoolSpec], annotation: str, addresses: Iterable[str]) -> frozenset[str]:
    """The addresses that an annotation names."""
    parts = {part.strip() for part in item.annotations.get(annotation, "").split(",")}
    return frozenset(address for address in addresses if address in parts or "*" in parts)


def quarantined(item: Item[IPPoolSpec], addresses: frozenset[str]) -> frozenset[str]:
    """The addresses of a pool that are in quarantine now, by the annotation or as automation decided at an earlier look."""
    found = set(named(item, QUARANTINE, addresses))
    if _is_automatic(item):
        for entry in item.status.get("addresses", ()):
            if (entry.get("quarantine") or {}).get("by") == AUTOMATION:
                found.add(entry["address"])
    return frozenset(found & addresses)


def decide(item: Item[IPPoolSpec], candidates: Sequence[Candidate]) -> dict[str, Decision]:
    """What becomes of each address from now on."""
    by_hand = named(item, QUARANTINE, [one.address for one in candidates])
    decisions = {address: Decision(ANNOTATION) for address in by_hand}
    rest = [one for one in candidates if one.address not in by_hand]
    in_use = {one.address for one in rest if one.weight}
    for one in sorted(rest, key=lambda one: one.before.get("by") != AUTOMATION):
        cause = _cause(one) if _is_automatic(item) else None
        if cause is None:
            decisions[one.address] = Decision()
        elif in_use <= {one.address}:
            decisions[one.address] = Decision("", cause)
        else:
            decisions[one.address] = Decision(AUTOMATION, cause)
            in_use.discard(one.address)
    return decisions


def _is_automatic(item: Item[IPPoolSpec]) -> bool:
    return item.spec is not None and item.spec.quarantine is QuarantineMode.AUTOMATIC


def _cause(one: Candidate) -> Reason | None:
    """Why automation would keep mail from the address; None where it would not.

    A quarantine ends only by what is certain: that no list has the address; that it is where it must be; that a connection left
    from it (the mail that could not leave still waits, and is tried again).
    """
    by_type = {condition.type: condition for condition in one.findings}
    listed = by_type[ConditionType.LISTED]
    plumbed = by_type[ConditionType.PLUMBED]
    source = by_type[ConditionType.SOURCE_VERIFIED]
    if listed.status is Truth.TRUE:
        return Reason.LISTED
    if plumbed.reason is Reason.NOT_ON_THIS_MACHINE:
        return Reason.NOT_ON_THIS_MACHINE
    if source.status is Truth.FALSE:
        return Reason.OTHER_SOURCE
    before = one.before.get("cause") if one.before.get("by") == AUTOMATION else None
    if before == Reason.LISTED and listed.status is not Truth.FALSE:
        return Reason.LISTED
    if before == Reason.NOT_ON_THIS_MACHINE and plumbed.status is not Truth.TRUE:
        return Reason.NOT_ON_THIS_MACHINE
    if before == Reason.OTHER_SOURCE and source.status is not Truth.TRUE:
        return Reason.OTHER_SOURCE
    return None
