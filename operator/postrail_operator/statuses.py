"""The status of each object, made of what was composed and seen. Pure: the time is an argument.

A condition keeps its time while its status stays, so that writing the same status again changes nothing. Neighbours:
`conditions` (decides), `plan` (writes only what differs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from postrail.core import dkim_record, kinds
from postrail.core.checks import Check, CheckResult, Verdict
from postrail.core.checks import Reason as CheckReason
from postrail.core.conditions import Condition, ConditionType, Reason, Truth, is_bad
from postrail.core.kind_status import (
    AddressStatus,
    ConditionStatus,
    DestinationStatus,
    IPPoolStatus,
    KindStatus,
    QuarantineStatus,
    RecordStatus,
    SenderPoolStatus,
    SenderStatus,
    SendingDomainStatus,
    SubmitterStatus,
)
from postrail.core.kinds import write_status
from postrail.core.sites import DEFAULT_GROUP, SiteTable
from postrail_operator import wanted
from postrail_operator.compose import Composition, username_of
from postrail_operator.conditions import Seen, address_findings, delivering, of_object
from postrail_operator.findings import OF_ADDRESSES, text_of
from postrail_operator.leases import Lease, State
from postrail_operator.objects import Item, Objects
from postrail_operator.quarantines import Candidate, Decision, decide
from postrail_operator.wanted import Routes


def merge(
    previous: Iterable[Mapping[str, Any]], found: Sequence[Condition], now: str, generation: int
) -> tuple[ConditionStatus, ...]:
    """Conditions with their times: a status that stays keeps the time at which it came.

    Args:
        previous: as the status has them.
        now: RFC 3339, UTC, in seconds.
    """
    before = {condition.get("type"): condition for condition in previous}
    merged = []
    for condition in found:
        old = before.get(condition.type)
        same = old is not None and old.get("status") == condition.status
        since = str(old["lastTransitionTime"]) if same and old is not None else now
        merged.append(
            ConditionStatus(
                type=condition.type,
                status=condition.status.value,
                reason=condition.reason,
                message=condition.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(merged)


def status_of(item: Item[Any], objects: Objects, made: Composition, seen: Seen, now: str) -> dict[str, object]:
    """The status of an object, as the API server takes it."""
    found = of_object(item, objects, made, seen)
    shared: dict[str, Any] = {
        "observed_generation": item.generation,
        "conditions": merge(item.status.get("conditions", ()), found, now, item.generation),
    }
    return write_status(_OF_KIND[item.kind.name](item, shared, objects, made, seen, now))


def _ip_pool(
    item: Item[Any], shared: dict[str, Any], objects: Objects, made: Composition, seen: Seen, now: str
) -> KindStatus:
    leases = [lease for lease in made.leases if lease.ip_pool == item.name]
    before = {entry.get("address"): entry for entry in item.status.get("addresses", ())}
    found = {lease.address.address: address_findings(lease, item, objects, made, seen) for lease in leases}
    candidates = [
        Candidate(address, lease.address.weight, found[address], before.get(address, {}).get("quarantine") or {})
        for lease in leases
        if lease.state in {State.ACTIVE, State.QUARANTINED}
        for address in (lease.address.address,)
    ]
    decisions = decide(item, candidates)
    addresses = []
    for lease in leases:
        old, decision = before.get(lease.address.address, {}), decisions.get(lease.address.address, Decision())
        said = decision.condition if lease.address.address in decisions else _out_of_use(lease)
        conditions = [*found[lease.address.address], said]
        merged = merge(old.get("conditions", ()), conditions, now, item.generation)
        quarantine = _quarantine(decision, old.get("quarantine") or {}, now)
        addresses.append(_address(lease, merged, quarantine))
    weighty = {lease.address.address for lease in leases if lease.address.weight}
    usable = sum(one.state == State.ACTIVE.value and one.address in weighty for one in addresses)
    return IPPoolStatus(
        **shared, usable=f"{usable}/{len(leases)}", used_by=made.users.get(item.name, ""), addresses=tuple(addresses)
    )


def _address(
    lease: Lease, conditions: tuple[ConditionStatus, ...], quarantine: QuarantineStatus | None
) -> AddressStatus:
    source = lease.address
    state = State.ACTIVE if lease.state is State.QUARANTINED else lease.state
    return AddressStatus(
        address=source.address,
        ehlo=source.ehlo,
        proxy=source.proxy,
        state=(state if quarantine is None else State.QUARANTINED).value,
        leased_to=lease.leased_to,
        quarantine=quarantine,
        conditions=conditions,
    )


def _out_of_use(lease: Lease) -> Condition:
    text = f"it is {lease.state}, so no mail is given to it anyway"
    return Condition(ConditionType.QUARANTINED, Truth.FALSE, Reason.NOT_QUARANTINED, text)


def _quarantine(decision: Decision, before: Mapping[str, Any], now: str) -> QuarantineStatus | None:
    """Who decided it and since when; a quarantine that stays keeps its time."""
    if decision.by not in {"annotation", "automation"}:
        return None
    since = str(before.get("since", now)) if before.get("by") == decision.by else now
    return QuarantineStatus.model_validate({"by": decision.by, "since": since, "cause": decision.cause or ""})


def _sender_pool(
    item: Item[Any], shared: dict[str, Any], _objects: Objects, made: Composition, seen: Seen, _now: str
) -> KindStatus:
    senders = seen.senders.get(item.name, ())
    load = seen.loads.get(item.name)
    return SenderPoolStatus(
        **shared,
        replicas=max((state.asked for state in senders), default=0),
        ready_replicas=sum(state.ready for state in senders),
        pods=f"{sum(state.ready for state in senders)}/{sum(state.asked for state in senders)}",
        selector=f"app.kubernetes.io/component=sender,postrail.io/pool={item.name}",
        senders=tuple(
            SenderStatus(
                name=state.name, destination=state.group, replicas=state.asked, ready=state.ready, most=state.most
            )
            for state in senders
        ),
        address_count=sum(lease.leased_to == item.name for lease in made.leases),
        eligible_deliveries=load.eligible if load else None,
        oldest_age_seconds=round(load.oldest_seconds) if load else None,
        limits_used_percent=round(load.limits_used * 100) if load else None,
    )


def _destination(
    item: Item[Any], shared: dict[str, Any], objects: Objects, made: Composition, _seen: Seen, _now: str
) -> KindStatus:
    if made.model is None:
        return DestinationStatus(**shared)
    pools = tuple(delivering(objects, made))
    if item.name == DEFAULT_GROUP:
        return DestinationStatus(**shared, site="*", group=DEFAULT_GROUP, sender_pools=pools)
    site = SiteTable(made.model.routing).named(item.name)
    return DestinationStatus(**shared, site=item.name, group=site.group if site is not None else "", sender_pools=pools)


def _sending_domain(
    item: Item[Any], shared: dict[str, Any], objects: Objects, made: Composition, seen: Seen, _now: str
) -> KindStatus:
    if item.spec is None:
        return SendingDomainStatus(**shared)
    records = tuple(records_of(item, objects, made, seen))
    published = sum(record.state == "Published" for record in records)
    return SendingDomainStatus(
        **shared,
        domain=item.spec.domain,
        active_selectors=tuple(made.selectors.get(item.name, ())),
        signs_with=",".join(made.selectors.get(item.name, ())),
        verified=f"{published}/{len(records)}",
        records=records,
    )


def records_of(item: Item[Any], objects: Objects, made: Composition, seen: Seen) -> Iterable[RecordStatus]:
    """The DNS records that a domain needs: its keys, SPF with the addresses that its mail can leave from, DMARC."""
    assert item.spec is not None
    domain, answers = item.spec.domain, seen.answers or {}
    before = {(entry.get("name"), entry.get("purpose")): entry for entry in item.status.get("records", ())}
    for key in wanted.dkim_checks(item, objects):
        name = dkim_record.name(key.selector, domain)
        yield _record(name, dkim_record.value(key.key), Check.DKIM, [answers.get(key)], before)
    routes = seen.routes or Routes.of(objects, made)
    if spf := wanted.spf_of_domain(domain, routes):
        addresses = sorted({check.address for check in spf})
        mechanisms = " ".join(f"ip6:{address}" if ":" in address else f"ip4:{address}" for address in addresses)
        yield _record(domain, f"v=spf1 {mechanisms} -all", Check.SPF, [answers.get(check) for check in spf], before)
    dmarc = answers.get(wanted.dmarc_check(item, objects))
    yield _record(f"_dmarc.{domain}", "v=DMARC1; p=none", Check.DMARC, [dmarc], before)


_PURPOSE = {Check.DKIM: "DKIM", Check.SPF: "SPF", Check.DMARC: "DMARC"}


def _record(
    name: str,
    value: str,
    check: Check,
    results: Sequence[CheckResult | None],
    before: Mapping[tuple[Any, Any], Mapping[str, Any]],
) -> RecordStatus:
    """One record, and how it stands in the DNS. Where nobody has looked yet, what was known of it stays."""
    purpose, state, message = _PURPOSE[check], "Unknown", ""
    worst = min((one for one in results if one is not None), key=_gravity, default=None)
    if worst is None or (worst.verdict is Verdict.PASSED and None in results):
        old = before.get((name, purpose), {})
        if old.get("value") == value:
            state, message = str(old.get("state", state)), str(old.get("message", ""))
    else:
        message = text_of(worst) if worst.verdict is not Verdict.PASSED else ""
        missing = worst.reason is CheckReason.RECORD_MISSING
        failed = "Missing" if missing else "Wrong"
        state = {Verdict.PASSED: "Published", Verdict.FAILED: failed, Verdict.UNKNOWN: "Unknown"}[worst.verdict]
    return RecordStatus.model_validate(
        {"name": name, "type": "TXT", "value": value, "purpose": purpose, "state": state, "message": message}
    )


def _gravity(result: CheckResult) -> int:
    return (Verdict.FAILED, Verdict.UNKNOWN, Verdict.PASSED).index(result.verdict)


def _submitter(
    item: Item[Any], shared: dict[str, Any], objects: Objects, made: Composition, _seen: Seen, _now: str
) -> KindStatus:
    pools = wanted.pools_of(item, objects, made)
    specs = {one.name: one.spec for one in objects.sender_pools}
    named = [spec.ip_pool_ref.name for name in pools if (spec := specs[name]) is not None]
    ip_pools = tuple(dict.fromkeys(name for name in named if made.users.get(name) in pools))
    return SubmitterStatus(**shared, username=username_of(item), sender_pools=tuple(pools), ip_pools=ip_pools)


_OF_KIND = {
    kinds.IP_POOL.name: _ip_pool,
    kinds.SENDER_POOL.name: _sender_pool,
    kinds.DESTINATION.name: _destination,
    kinds.SENDING_DOMAIN.name: _sending_domain,
    kinds.SUBMITTER.name: _submitter,
}


def changed(item: Item[Any], status: Mapping[str, Any]) -> bool:
    """Whether the status differs from the one that the object has."""
    return dict(item.status) != status


TOLD = frozenset({ConditionType.ACCEPTED, ConditionType.RELEASED, ConditionType.HONOURED})
"""Of these conditions every change is told; of what the checks found and of quarantines, that it went bad or well again."""
_FOUND = frozenset({*OF_ADDRESSES, ConditionType.QUARANTINED, ConditionType.VERIFIED})
MOST_EVENTS = 20
Event = tuple[str, str, str]
"""Type (Normal, Warning), reason and message."""


def events_of(item: Item[Any], status: Mapping[str, Any]) -> list[Event]:
    """What to tell of an object whose status changed, MOST_EVENTS at most."""
    found = list(_changes(item.status.get("conditions", ()), status["conditions"], ""))
    before = {entry.get("address"): entry for entry in item.status.get("addresses", ())}
    for entry in status.get("addresses", ()):
        old = before.get(entry["address"], {}).get("conditions", ())
        found += _changes(old, entry["conditions"], f"{entry['address']}: ")
    return found[:MOST_EVENTS]


def _changes(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]], about: str) -> Iterable[Event]:
    known = {one.get("type"): one for one in before}
    for one in now:
        kind, old = one["type"], known.get(one["type"], {})
        bad = is_bad(kind, one["status"])
        well_again = not bad and one["status"] != "Unknown" and is_bad(kind, str(old.get("status", "")))
        if kind in TOLD:
            changed = (old.get("status"), old.get("reason")) != (one["status"], one["reason"])
            told = changed and one["reason"] != Reason.EVERYTHING_ACTS
        else:
            told = kind in _FOUND and (well_again or (bad and not is_bad(kind, str(old.get("status", "")))))
        if told:
            yield ("Warning" if bad else "Normal", one["reason"], f"{about}{kind}: {one['message']}")
