"""Leases: which IPPool has an address, and which SenderPool may send from it. No address is ever with two.

Pure. Who has an address keeps it until nothing that could leave from it waits any more; then the oldest who asks for it gets
it. What was leased stands in the status of the IPPools, so a restarted operator knows it. Neighbours: `compose` (makes sources
of leases), `conditions` (tells who has what).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from postrail.core.annotations import RELEASE
from postrail.core.kind_specs import AddressSpec, IPPoolSpec
from postrail_operator.objects import Item, Objects
from postrail_operator.quarantines import named, quarantined


class State(StrEnum):
    """What becomes of an address."""

    ACTIVE = "Active"
    QUARANTINED = "Quarantined"
    DRAINING = "Draining"
    TAKEN = "Taken"
    IDLE = "Idle"


@dataclass(frozen=True, slots=True)
class Lease:
    """One address in one IPPool.

    Attributes:
        leased_to: the SenderPool that may send from it; "": none.
        owner: the IPPool that has it; another one than `ip_pool` where the state is TAKEN.
    """

    ip_pool: str
    address: AddressSpec
    state: State
    leased_to: str
    owner: str

    @property
    def sends(self) -> bool:
        """Whether mail can leave from it."""
        return self.state in {State.ACTIVE, State.QUARANTINED, State.DRAINING}


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody asks for something that only one can have."""

    thing: str
    claimant: str
    age: tuple[str, str]
    holds: bool = False
    """Whether the claimant has it already."""


def first_come(claims: Iterable[Claim]) -> dict[str, str]:
    """Who gets each thing: who has it, otherwise who came first."""
    ordered = sorted(claims, key=lambda claim: (not claim.holds, claim.age))
    owners: dict[str, str] = {}
    for claim in ordered:
        owners.setdefault(claim.thing, claim.claimant)
    return owners


def pool_users(objects: Objects) -> dict[str, str]:
    """By IPPool, the SenderPool that has its addresses, or asked for them first."""
    held = {item.name: str(item.status.get("usedBy", "")) for item in objects.ip_pools}
    return first_come(
        Claim(item.spec.ip_pool_ref.name, item.name, item.age, held.get(item.spec.ip_pool_ref.name) == item.name)
        for item in objects.sender_pools
        if item.spec is not None
    )


def leases(objects: Objects, users: Mapping[str, str], drained: frozenset[str]) -> list[Lease]:
    """Every address of every IPPool, those that were taken out of a spec and are not free yet included.

    Args:
        users: as `pool_users`.
        drained: SenderPools of which it is known that nothing waits in their senders' queues, and that all services have read
            the present configuration. An address is free when it was draining already, so that no new mail comes for it.
    """
    existing = {item.name for item in objects.sender_pools}
    draining = {
        (item.name, entry["address"])
        for item in objects.ip_pools
        for entry in item.status.get("addresses", ())
        if entry.get("state") == State.DRAINING
    }
    held = {item.name: _held(item) for item in objects.ip_pools}
    stuck = {
        (item.name, address)
        for item in objects.ip_pools
        for address, (_, leased_to) in held[item.name].items()
        if leased_to in existing
        and not (leased_to in drained and (item.name, address) in draining)
        and address not in named(item, RELEASE, held[item.name])
    }
    owners = first_come(_claims(objects, held, stuck))
    found: list[Lease] = []
    for item in objects.ip_pools:
        wanted = {source.address: source for source in item.spec.addresses} if item.spec is not None else {}
        kept_back = quarantined(item, frozenset(wanted))
        for address, source in wanted.items():
            previous = held[item.name].get(address, (source, ""))[1] if (item.name, address) in stuck else ""
            found.append(_lease(item.name, source, owners[address], users, previous, address in kept_back))
        for address, (source, leased_to) in held[item.name].items():
            if address not in wanted and (item.name, address) in stuck and owners[address] == item.name:
                found.append(Lease(item.name, source, State.DRAINING, leased_to, item.name))
    return found


def _lease(
    pool: str, source: AddressSpec, owner: str, users: Mapping[str, str], previous: str, quarantined: bool
) -> Lease:
    user = users.get(pool, "")
    if owner != pool:
        return Lease(pool, source, State.TAKEN, "", owner)
    if previous and previous != user:
        return Lease(pool, source, State.DRAINING, previous, pool)
    if not user:
        return Lease(pool, source, State.IDLE, "", pool)
    return Lease(pool, source, State.QUARANTINED if quarantined else State.ACTIVE, user, pool)


Held = Mapping[str, tuple[AddressSpec, str]]
"""By address: how it was described, and to whom it was leased."""


def _held(item: Item[IPPoolSpec]) -> Held:
    """What the status says that this pool has."""
    found: dict[str, tuple[AddressSpec, str]] = {}
    for entry in item.status.get("addresses", ()):
        if entry.get("state") in {State.ACTIVE, State.QUARANTINED, State.DRAINING}:
            source = AddressSpec(
                address=entry["address"], ehlo=entry.get("ehlo", "localhost"), weight=0, proxy=entry.get("proxy")
            )
            found[source.address] = (source, entry.get("leasedTo", ""))
    return found


def _claims(objects: Objects, held: Mapping[str, Held], stuck: set[tuple[str, str]]) -> Iterable[Claim]:
    for item in objects.ip_pools:
        wanted = {source.address for source in item.spec.addresses} if item.spec is not None else set()
        for address in sorted(wanted | held[item.name].keys()):
            holds = (item.name, address) in stuck or (address in wanted and address in held[item.name])
            if address in wanted or holds:
                yield Claim(address, item.name, item.age, holds)


def of_sender_pool(found: Sequence[Lease], name: str) -> list[Lease]:
    """The addresses from which a SenderPool's mail may leave."""
    return [lease for lease in found if lease.leased_to == name and lease.sends]
