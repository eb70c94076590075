"""The status of each object, made of what was composed and seen. Pure: the time is an argument.

A condition keeps its time while its status stays, so that writing the same status again changes nothing. Neighbours:
`conditions` (decides), `plan` (writes only what differs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from postrail.core import dkim_record, kinds
from postrail.core.conditions import Condition, ConditionType, Reason
from postrail.core.kind_status import (
    AddressStatus,
    ConditionStatus,
    DestinationStatus,
    IPPoolStatus,
    KindStatus,
    RecordStatus,
    SenderPoolStatus,
    SenderStatus,
    SendingDomainStatus,
    SubmitterStatus,
)
from postrail.core.kinds import write_status
from postrail.core.sites import DEFAULT_GROUP, SiteTable
from postrail_operator import keys
from postrail_operator.compose import Composition, username_of
from postrail_operator.conditions import Seen, of_address, of_object
from postrail_operator.leases import State
from postrail_operator.objects import Item, Objects


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
    item: Item[Any], shared: dict[str, Any], _objects: Objects, made: Composition, seen: Seen, now: str
) -> KindStatus:
    found = [lease for lease in made.leases if lease.ip_pool == item.name]
    before = {entry.get("address"): entry for entry in item.status.get("addresses", ())}
    addresses = []
    for lease in found:
        source = lease.address
        old = before.get(source.address, {}).get("conditions", ())
        conditions = merge(old, of_address(lease, seen), now, item.generation)
        addresses.append(
            AddressStatus(
                address=source.address,
                ehlo=source.ehlo,
                proxy=source.proxy,
                state=lease.state.value,
                leased_to=lease.leased_to,
                conditions=conditions,
            )
        )
    active = sum(lease.state is State.ACTIVE for lease in found)
    return IPPoolStatus(
        **shared, usable=f"{active}/{len(found)}", used_by=made.users.get(item.name, ""), addresses=tuple(addresses)
    )


def _sender_pool(
    item: Item[Any], shared: dict[str, Any], _objects: Objects, made: Composition, seen: Seen, _now: str
) -> KindStatus:
    senders = seen.senders.get(item.name, ())
    load = seen.loads.get(item.name)
    return SenderPoolStatus(
        **shared,
        replicas=max((state.asked for state in senders), default=0),
        ready_replicas=sum(state.ready for state in senders),
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
    item: Item[Any], shared: dict[str, Any], _objects: Objects, made: Composition, _seen: Seen, _now: str
) -> KindStatus:
    if made.model is None:
        return DestinationStatus(**shared)
    if item.name == DEFAULT_GROUP:
        return DestinationStatus(**shared, site="*", group=DEFAULT_GROUP)
    site = SiteTable(made.model.routing).named(item.name)
    return DestinationStatus(**shared, site=item.name, group=site.group if site is not None else "")


def _sending_domain(
    item: Item[Any], shared: dict[str, Any], objects: Objects, made: Composition, _seen: Seen, _now: str
) -> KindStatus:
    if item.spec is None:
        return SendingDomainStatus(**shared)
    records = tuple(records_of(item, objects, made))
    published = sum(record.state == "Published" for record in records)
    return SendingDomainStatus(
        **shared,
        domain=item.spec.domain,
        active_selectors=tuple(made.selectors.get(item.name, ())),
        verified=f"{published}/{len(records)}",
        records=records,
    )


def records_of(item: Item[Any], objects: Objects, made: Composition) -> Iterable[RecordStatus]:
    """The DNS records that a domain needs: its keys, SPF with the addresses that its mail can leave from, DMARC."""
    assert item.spec is not None
    domain = item.spec.domain
    for key in item.spec.dkim.keys:
        try:
            value = dkim_record.value(keys.public_key(keys.entry(objects.secrets, key.secret_ref)))
        except (keys.Missing, keys.Unusable):
            continue
        name = dkim_record.name(key.selector, domain)
        yield RecordStatus(name=name, type="TXT", value=value, purpose="DKIM")
    addresses = sorted({lease.address.address for lease in made.leases if lease.sends})
    if addresses:
        mechanisms = " ".join(f"ip6:{address}" if ":" in address else f"ip4:{address}" for address in addresses)
        yield RecordStatus(name=domain, type="TXT", value=f"v=spf1 {mechanisms} -all", purpose="SPF")
    yield RecordStatus(name=f"_dmarc.{domain}", type="TXT", value="v=DMARC1; p=none", purpose="DMARC")


def _submitter(
    item: Item[Any], shared: dict[str, Any], _objects: Objects, _made: Composition, _seen: Seen, _now: str
) -> KindStatus:
    return SubmitterStatus(**shared, username=username_of(item))


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


def event_of(item: Item[Any], status: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The event to tell when `Accepted` or `Released` changed: its type (Normal, Warning), reason and message."""
    before = {one.get("type"): (one.get("status"), one.get("reason")) for one in item.status.get("conditions", ())}
    for one in status["conditions"]:
        told = one["type"] in {ConditionType.ACCEPTED, ConditionType.RELEASED, ConditionType.HONOURED}
        if (
            told
            and before.get(one["type"]) != (one["status"], one["reason"])
            and one["reason"] != Reason.EVERYTHING_ACTS
        ):
            return ("Normal" if one["status"] == "True" else "Warning", one["reason"], one["message"])
    return None
