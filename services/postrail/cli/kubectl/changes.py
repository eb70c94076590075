"""What is changed in an object when a person suspends, drains or quarantines. Pure: objects in, merge patches out (RFC 7396).

A patch names the resourceVersion that it was made for, so that it changes nothing where somebody else was quicker. Suspending
writes a field of the spec, draining a weight, quarantine an annotation; the operator acts on all of them. Neighbour: `main`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from postrail.cli.exit_status import EXIT_USAGE
from postrail.cli.kubectl.client import KubectlFailed, NotFound
from postrail.core.annotations import QUARANTINE, WEIGHTS
from postrail.core.config import AddressConfig
from postrail.core.kinds import DESTINATION, IP_POOL, KINDS, SENDER_POOL, Kind

Object = Mapping[str, Any]
Patch = dict[str, Any]
EVERY = "*"
DEFAULT_WEIGHT = int(AddressConfig.model_fields["weight"].default)


@dataclass(frozen=True, slots=True)
class Target:
    """What a person named: an object, or an address."""

    kind: Kind
    name: str = ""
    address: str = ""


def target(text: str, allowed: Sequence[Kind]) -> Target:
    """`senderpool/NAME`, or an address, which stands for the IPPool that has it.

    Args:
        allowed: the kinds that may be named; an address where IPPool is among them.

    Raises:
        KubectlFailed: it is none of these.
    """
    kind_name, slash, name = text.partition("/")
    if not slash:
        try:
            address = str(ip_address(text))
        except ValueError:
            address = ""
        if address and IP_POOL in allowed:
            return Target(IP_POOL, address=address)
    kind = next((one for one in KINDS if kind_name.lower() in (one.singular, one.plural, *one.short_names)), None)
    if not name or kind is None or kind not in allowed:
        raise KubectlFailed(f"{text!r} is not what this command is about: name {choices(allowed)}", EXIT_USAGE)
    return Target(kind, name)


def choices(allowed: Sequence[Kind]) -> str:
    """What may be named, in words."""
    return " or ".join("an address, or ippool/NAME" if one is IP_POOL else f"{one.singular}/NAME" for one in allowed)


def pool_of(address: str, pools: Iterable[Object], where: str) -> Object:
    """The IPPool that has an address.

    Raises:
        NotFound: none has it.
    """
    found = [pool for pool in pools if address in _weights(pool)]
    if not found:
        raise NotFound(f"no IPPool in {where} has the address {address}: kubectl get ippools -o yaml lists them", 1)
    return next((pool for pool in found if not _is_taken(pool, address)), found[0])


def addresses_of(pool: Object) -> list[str]:
    """The addresses of an IPPool."""
    return list(_weights(pool))


def _is_taken(pool: Object, address: str) -> bool:
    entries = pool.get("status", {}).get("addresses", ())
    return any(entry["address"] == address and entry["state"] == "Taken" for entry in entries)


def suspended(found: Object, kind: Kind, *, suspend: bool) -> Patch | None:
    """Suspend a SenderPool or a Destination, or end that; None where it is so already."""
    spec = found["spec"]
    if kind is SENDER_POOL:
        return None if bool(spec.get("suspend")) is suspend else _patch(found, spec={"suspend": suspend})
    assert kind is DESTINATION
    limits = spec.get("limits") or {}
    if bool(limits.get("suspend")) is suspend:
        return None
    return _patch(found, spec={"limits": {"suspend": True if suspend else None}})


def drained(pool: Object, address: str) -> Patch | None:
    """Give no new mail to an address (weight 0), and keep its weight for later; None where it has none already."""
    weight = _weights(pool)[address]
    if weight == 0:
        return None
    kept = {**_kept(pool), address: weight}
    return _weigh(pool, address, 0, kept)


def resumed(pool: Object, address: str) -> Patch | None:
    """Give mail to an address again, as much as before; None where it has a weight."""
    if _weights(pool)[address]:
        return None
    kept = _kept(pool)
    weight = kept.pop(address, DEFAULT_WEIGHT)
    return _weigh(pool, address, weight, kept)


def quarantined(pool: Object, address: str) -> Patch | None:
    """Name an address, or EVERY, in the annotation; None where it stands there."""
    named = _named(pool)
    if address in named or EVERY in named:
        return None
    return _patch(pool, annotations={QUARANTINE: EVERY if address == EVERY else ",".join([*named, address])})


def released(pool: Object, address: str) -> Patch | None:
    """Take an address, or EVERY, out of the annotation; None where it does not stand there.

    Of a whole pool in quarantine, the other addresses stay in it.
    """
    named = _named(pool)
    if address == EVERY:
        return _patch(pool, annotations={QUARANTINE: None}) if named else None
    if EVERY in named:
        named = list(_weights(pool))
    if address not in named:
        return None
    rest = [one for one in named if one != address]
    return _patch(pool, annotations={QUARANTINE: ",".join(rest) or None})


def usable(pool: Object, change: Patch | None) -> list[str]:
    """The addresses that get new mail once a change is made."""
    named = _named(pool)
    weights = _weights(pool)
    if change is not None:
        if (annotation := change["metadata"].get("annotations", {}).get(QUARANTINE, "")) != "":
            named = _split(annotation or "")
        if (addresses := change.get("spec", {}).get("addresses")) is not None:
            weights = _weights({"spec": {"addresses": addresses}})
    return [address for address, weight in weights.items() if weight and address not in named and EVERY not in named]


def _weigh(pool: Object, address: str, weight: int, kept: Mapping[str, int]) -> Patch:
    addresses = [
        {**entry, "weight": weight} if _canonical(entry["address"]) == address else entry
        for entry in pool["spec"]["addresses"]
    ]
    written = ",".join(f"{name}={number}" for name, number in kept.items())
    return _patch(pool, spec={"addresses": addresses}, annotations={WEIGHTS: written or None})


def _patch(found: Object, *, spec: Patch | None = None, annotations: Patch | None = None) -> Patch:
    metadata: Patch = {"resourceVersion": found["metadata"].get("resourceVersion")}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata} | ({"spec": spec} if spec is not None else {})


def _weights(pool: Object) -> dict[str, int]:
    return {_canonical(entry["address"]): entry.get("weight", DEFAULT_WEIGHT) for entry in pool["spec"]["addresses"]}


def _kept(pool: Object) -> dict[str, int]:
    """What the annotation keeps; entries that a person broke are left out."""
    found = {}
    for entry in _split(pool["metadata"].get("annotations", {}).get(WEIGHTS, "")):
        address, _, weight = entry.rpartition("=")
        if weight.isdecimal() and 0 < int(weight) <= 10_000:
            found[_canonical(address)] = int(weight)
    return found


def _named(pool: Object) -> list[str]:
    return [_canonical(entry) for entry in _split(pool["metadata"].get("annotations", {}).get(QUARANTINE, ""))]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address
