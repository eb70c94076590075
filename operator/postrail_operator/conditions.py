"""Which conditions hold for each object. A chain of pure functions: the first that finds something says why.

Owns the decisions; the words (types, reasons) are `postrail.core.conditions`, what was found is `compose.Composition` and
`Seen`. What becomes of conditions over time (when they changed) is `statuses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic.alias_generators import to_camel

from postrail.core import kinds
from postrail.core.annotations import ABANDON
from postrail.core.conditions import Condition, ConditionType, Reason, Truth
from postrail.core.kind_specs import DkimSpec
from postrail_operator import findings
from postrail_operator.compose import Composition
from postrail_operator.findings import OF_ADDRESSES, OF_DOMAINS
from postrail_operator.leases import Lease, State
from postrail_operator.objects import Item, Objects
from postrail_operator.reports import Report
from postrail_operator.wanted import Answers, Routes, pools_of


@dataclass(frozen=True, slots=True)
class SenderState:
    """The senders of one Deployment, as they are."""

    name: str
    group: str
    asked: int
    """Replicas of the Deployment."""
    ready: int
    most: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a SenderPool's senders tell of their work, all groups together."""

    eligible: int
    oldest_seconds: float
    limits_used: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed beside the objects.

    Attributes:
        senders: by SenderPool.
        loads: by SenderPool; missing where nobody can tell.
        queued: by SenderPool, deliveries in its senders' queues; missing where nobody can tell.
        answers: what the checks found; None: they are switched off.
        reports: what the senders tell of their addresses; None: nobody asked them yet.
        routes: whose mail leaves from where; None: to be found out.
    """

    senders: Mapping[str, Sequence[SenderState]] = field(default_factory=dict)
    loads: Mapping[str, Load] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    answers: Answers | None = field(default_factory=dict)
    reports: Sequence[Report] | None = None
    routes: Routes | None = None


Found = Condition | None


def _true(kind: ConditionType, reason: Reason, message: str) -> Condition:
    return Condition(kind, Truth.TRUE, reason, message)


def _false(kind: ConditionType, reason: Reason, message: str) -> Condition:
    return Condition(kind, Truth.FALSE, reason, message)


def of_object(item: Item[Any], objects: Objects, made: Composition, seen: Seen) -> list[Condition]:
    """The conditions of an object, those of its addresses aside."""
    found = [accepted(item, made), honoured(item)]
    if item.kind is kinds.IP_POOL:
        found.append(_pool_ready(item, made))
    elif item.kind is kinds.SENDER_POOL:
        found += [_senders_ready(item, seen), scaled(item, seen)]
    elif item.kind is kinds.DESTINATION:
        found.append(_destination_ready(item, objects, made))
    elif item.kind is kinds.SENDING_DOMAIN:
        found += domain_findings(item, objects, made, seen)
    elif item.kind is kinds.SUBMITTER:
        found.append(_submitter_ready(item, objects, made))
    if item.deleting:
        found.append(released(item, objects, made, seen))
    return found


def accepted(item: Item[Any], made: Composition) -> Condition:
    """Whether the object is in the configuration."""
    fault = made.faults.get(item.key)
    if fault is not None:
        return _false(ConditionType.ACCEPTED, fault.reason, fault.message)
    return _true(ConditionType.ACCEPTED, Reason.ACCEPTED, "it is in the services' configuration")


def honoured(item: Item[Any]) -> Condition:
    """Whether everything that the object says acts in this release."""
    idle = item.spec.not_yet_acting() if item.spec is not None else {}
    if not idle:
        return _true(ConditionType.HONOURED, Reason.EVERYTHING_ACTS, "everything in the spec acts")
    fields = [f"spec.{_path(item, name)} does nothing in this release: {text}" for name, text in idle.items()]
    return _false(ConditionType.HONOURED, Reason.NOT_YET_ACTING, "; ".join(fields))


def _path(item: Item[Any], name: str) -> str:
    if item.kind is kinds.SENDING_DOMAIN and name in DkimSpec.model_fields:
        return f"dkim.{to_camel(name)}"
    return name if "." in name else to_camel(name)


def _pool_ready(item: Item[Any], made: Composition) -> Condition:
    found = [lease for lease in made.leases if lease.ip_pool == item.name and lease.state is not State.DRAINING]
    active = [lease for lease in found if lease.state is State.ACTIVE]
    if found and len(active) == len(found):
        return _true(
            ConditionType.READY, Reason.READY, f"the SenderPool {active[0].leased_to} sends from every address"
        )
    if not made.users.get(item.name):
        return _false(ConditionType.READY, Reason.UNUSED, "no SenderPool names it in ipPoolRef")
    rest = ", ".join(f"{lease.address.address} is {lease.state}" for lease in found if lease.state is not State.ACTIVE)
    return _false(ConditionType.READY, Reason.PENDING, f"{len(active)} of {len(found)} addresses send; {rest}")


def delivering(objects: Objects, made: Composition) -> list[str]:
    """The SenderPools whose senders deliver: to every destination."""
    return [item.name for item in objects.sender_pools if item.key not in made.faults and not item.deleting]


def _destination_ready(item: Item[Any], objects: Objects, made: Composition) -> Condition:
    if (fault := made.faults.get(item.key)) is not None:
        return _false(ConditionType.READY, fault.reason, fault.message)
    if item.spec is not None and item.spec.limits.suspend:
        text = "nothing is sent to it (spec.limits.suspend); mail waits, and goes from minutes after the end of it on"
        return _false(ConditionType.READY, Reason.SUSPENDED, text)
    if pools := delivering(objects, made):
        return _true(ConditionType.READY, Reason.READY, f"the senders of {', '.join(pools)} keep to it")
    text = "no SenderPool can be used, so nothing is sent to it: make one, or look what is wrong with those that exist"
    return _false(ConditionType.READY, Reason.NO_SENDER_POOL, text)


def _submitter_ready(item: Item[Any], objects: Objects, made: Composition) -> Condition:
    if (fault := made.faults.get(item.key)) is not None:
        return _false(ConditionType.READY, fault.reason, fault.message)
    pools = pools_of(item, objects, made)
    waits = [name for name in pools if (kinds.SENDER_POOL.name, name) in made.faults]
    text = f"it can submit, and the senders of {', '.join(pools)} send its mail"
    if waits:
        text += f"; the mail of {', '.join(waits)} waits, whose condition Accepted says why"
    return _true(ConditionType.READY, Reason.READY, text)


def _senders_ready(item: Item[Any], seen: Seen) -> Condition:
    if item.spec is not None and (item.spec.suspend or item.spec.replicas == 0):
        text = "sending is suspended (spec.suspend, or spec.replicas is 0); mail waits"
        return _false(ConditionType.READY, Reason.SUSPENDED, text)
    senders = seen.senders.get(item.name, ())
    waiting = [f"{state.name} has {state.ready} of {state.asked}" for state in senders if state.ready < state.asked]
    if not senders:
        return _false(ConditionType.READY, Reason.PENDING, "no senders run yet")
    if waiting:
        return _false(ConditionType.READY, Reason.PENDING, f"senders are not ready: {', '.join(waiting)}")
    return _true(ConditionType.READY, Reason.READY, f"{sum(state.ready for state in senders)} senders are ready")


def scaled(item: Item[Any], seen: Seen) -> Condition:
    """Whether as many senders run as are asked for, and whether more would be of use."""
    if item.spec is None:
        return Condition(ConditionType.SCALED, Truth.UNKNOWN, Reason.INVALID_SPEC, "the spec cannot be used")
    most = {state.name: state.most for state in seen.senders.get(item.name, ()) if state.most < item.spec.replicas}
    if most:
        text = ", ".join(f"{name} gets {number}" for name, number in most.items())
        why = "more than its partitions, addresses and nodes can use"
        return _false(ConditionType.SCALED, Reason.CAPPED, f"spec.replicas is {item.spec.replicas}, {why}: {text}")
    load = seen.loads.get(item.name)
    scaling = item.spec.autoscaling
    if scaling is not None and load is None:
        text = "nobody tells how much mail waits, so replicas stay as they are; the operator asks the Prometheus of its settings"
        return Condition(ConditionType.SCALED, Truth.UNKNOWN, Reason.NO_METRICS, text)
    if scaling is not None and load is not None and load.eligible and load.limits_used >= scaling.max_limits_used:
        text = (
            f"{load.limits_used:.0%} of what the receivers' limits allow is used: more senders would send nothing more"
        )
        return _true(ConditionType.SCALED, Reason.LIMITS_REACHED, text)
    return _true(ConditionType.SCALED, Reason.AS_ASKED, "as many senders run as are asked for")


def released(item: Item[Any], objects: Objects, made: Composition, seen: Seen) -> Condition:
    """Whether an object that is being deleted may go, and if not, who holds it."""
    if item.kind is kinds.IP_POOL:
        found = _pool_in_use(item, objects, made)
    elif item.kind is kinds.SENDER_POOL:
        found = _stream_in_use(item, objects, made) or _mail_queued(item, made, seen)
    else:
        found = None
    return found or _true(ConditionType.RELEASED, Reason.UNUSED, "nothing uses it any more")


def _pool_in_use(item: Item[Any], objects: Objects, made: Composition) -> Found:
    users = [
        one.name for one in objects.sender_pools if one.spec is not None and one.spec.ip_pool_ref.name == item.name
    ]
    if users:
        text = f"SenderPools send from its addresses: {', '.join(users)}; delete them, or name another IPPool in their ipPoolRef"
        return _false(ConditionType.RELEASED, Reason.IN_USE, text)
    draining = [lease for lease in made.leases if lease.ip_pool == item.name and lease.sends]
    if draining:
        names = ", ".join(f"{lease.address.address} ({lease.leased_to})" for lease in draining)
        text = f"mail may still wait to leave from {names}; it goes when their queues are empty"
        return _false(ConditionType.RELEASED, Reason.MAIL_QUEUED, text)
    return None


def _stream_in_use(item: Item[Any], objects: Objects, made: Composition) -> Found:
    fault = made.faults.get(item.key)
    if item.spec is None or (fault is not None and fault.reason is Reason.STREAM_TAKEN):
        return None
    stream = item.spec.stream
    users = [
        one.name
        for one in objects.submitters
        if one.spec is not None and stream in (one.spec.stream, *one.spec.streams)
    ]
    if not users:
        return None
    text = f"Submitters use its stream {stream}: {', '.join(users)}; delete them, or give them another stream"
    return _false(ConditionType.RELEASED, Reason.IN_USE, text)


def _mail_queued(item: Item[Any], made: Composition, seen: Seen) -> Found:
    if item.annotations.get(ABANDON) == "true":
        return None
    queued = seen.queued.get(item.name)
    if queued is None:
        text = (
            "nobody tells whether mail waits for it (the operator has no Prometheus, or that has no figures of its senders); "
            f"look with postrail queue, and annotate it {ABANDON}=true when none does"
        )
        return _false(ConditionType.RELEASED, Reason.UNKNOWN_QUEUE, text)
    if queued:
        return _false(
            ConditionType.RELEASED, Reason.MAIL_QUEUED, f"{queued} deliveries wait for its senders; it goes after them"
        )
    return None


def domain_findings(item: Item[Any], objects: Objects, made: Composition, seen: Seen) -> list[Condition]:
    """What the checks found of a domain."""
    if item.spec is None:
        return []
    if seen.answers is None:
        return findings.unchecked((ConditionType.VERIFIED, *OF_DOMAINS))
    before = item.status.get("conditions", ())
    return findings.of_domain(item, objects, seen.answers, seen.routes or Routes.of(objects, made), before)


def address_findings(lease: Lease, item: Item[Any], objects: Objects, made: Composition, seen: Seen) -> list[Condition]:
    """What the checks and the senders found of an address of a pool."""
    if seen.answers is None:
        return findings.unchecked(OF_ADDRESSES)
    routes = seen.routes or Routes.of(objects, made)
    entries: Sequence[Mapping[str, Any]] = item.status.get("addresses", ())
    before = next((one for one in entries if one.get("address") == lease.address.address), {})
    known = before.get("conditions", ()) if before.get("ehlo") == lease.address.ehlo else ()
    return findings.of_address(lease, item.spec, seen.answers, seen.reports, routes, known)
