"""The objects that the operator reads, as values: what of each matters, with its spec validated.

Owns nothing of the cluster: `client` brings what the API server says, everything that decides takes what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from postrail.core import kinds
from postrail.core.kind_specs import DestinationSpec, IPPoolSpec, SenderPoolSpec, SendingDomainSpec, Spec, SubmitterSpec
from postrail.core.kinds import InvalidObject, Kind, read_spec

Manifest = dict[str, Any]
"""An object of Kubernetes, as JSON has it."""
SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class Item(Generic[SpecT]):
    """One object of a kind.

    Attributes:
        created_at: RFC 3339, so that it sorts by time.
        spec: None where it cannot be used; `problem` says why.
        status: as the operator wrote it last.
    """

    kind: Kind
    name: str
    created_at: str
    generation: int
    deleting: bool
    spec: SpecT | None
    problem: str
    status: Mapping[str, Any]
    annotations: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """Kind and name."""
        return (self.kind.name, self.name)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts by who came first; a name decides between two of the same second."""
        return (self.created_at, self.name)


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of the namespace, and the entries of the Secrets to which they refer (by Secret and key)."""

    ip_pools: Sequence[Item[IPPoolSpec]] = ()
    sender_pools: Sequence[Item[SenderPoolSpec]] = ()
    destinations: Sequence[Item[DestinationSpec]] = ()
    domains: Sequence[Item[SendingDomainSpec]] = ()
    submitters: Sequence[Item[SubmitterSpec]] = ()
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    @property
    def every(self) -> tuple[Item[Any], ...]:
        """All of them."""
        return (*self.ip_pools, *self.sender_pools, *self.destinations, *self.domains, *self.submitters)


def read_item(kind: Kind, body: Mapping[str, Any]) -> Item[Any]:
    """An object as the API server gives it."""
    metadata = body["metadata"]
    spec, problem = None, ""
    try:
        spec = read_spec(kind, body.get("spec", {}))
    except InvalidObject as error:
        problem = str(error)
    return Item(
        kind,
        metadata["name"],
        metadata.get("creationTimestamp", ""),
        metadata.get("generation", 0),
        metadata.get("deletionTimestamp") is not None,
        spec,
        problem,
        body.get("status") or {},
        metadata.get("annotations") or {},
    )


def read_objects(
    bodies: Mapping[str, Iterable[Mapping[str, Any]]], secrets: Mapping[str, Mapping[str, bytes]]
) -> Objects:
    """All objects, by kind."""

    def of(kind: Kind) -> tuple[Item[Any], ...]:
        return tuple(sorted((read_item(kind, body) for body in bodies.get(kind.name, ())), key=lambda item: item.age))

    return Objects(
        of(kinds.IP_POOL),
        of(kinds.SENDER_POOL),
        of(kinds.DESTINATION),
        of(kinds.SENDING_DOMAIN),
        of(kinds.SUBMITTER),
        secrets,
    )


def secrets_needed(objects: Objects) -> frozenset[str]:
    """The names of the Secrets to which objects refer."""
    names = {
        item.spec.password_secret_ref.name for item in objects.submitters if item.spec and item.spec.password_secret_ref
    }
    names |= {key.secret_ref.name for item in objects.domains if item.spec for key in item.spec.dkim.keys}
    return frozenset(names)
