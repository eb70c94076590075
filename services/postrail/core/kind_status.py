"""What the operator writes into the status of each kind. The specs are in `kinds`; the conditions' words in `conditions`.

Only what something fills in has a field here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from postrail.core.section import Section

ENTRIES = 512
"""Entries of a long list in a status, at most."""


def _keyed(*keys: str) -> dict[str, object]:
    """Says by which of its fields an entry of a list is known."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class ConditionStatus(Section):
    """A condition, as Kubernetes' tools read it."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` changed last."""
    observed_generation: int | None = None
    """The generation of the object that it is about."""


Conditions = Annotated[tuple[ConditionStatus, ...], Field(max_length=32, json_schema_extra=_keyed("type"))]


Names = Annotated[tuple[str, ...], Field(max_length=256)]
"""Names of objects of the same namespace."""


class KindStatus(Section):
    """What every status has."""

    observed_generation: int | None = None
    """The generation of the object that this status is about."""
    conditions: Conditions = ()


class QuarantineStatus(Section):
    """Why no new mail is given to an address."""

    by: Literal["annotation", "automation"]
    """Who decided it: a person by the annotation postrail.io/quarantine, or the operator (`spec.quarantine: automatic`)."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When that began."""
    cause: Annotated[str, Field(max_length=64)] = ""
    """What automation found: `Listed`, `OtherSource`, `NotOnThisMachine`."""


class AddressStatus(Section):
    """One address of an IPPool."""

    address: str
    """As in the spec."""
    ehlo: str = ""
    """The name with which it greets."""
    proxy: str | None = None
    """The proxy through which it is reached."""
    state: Literal["Active", "Quarantined", "Draining", "Taken", "Idle"]
    """Active: mail leaves from it. Quarantined: no new mail is given to it. Draining: it is no longer in the spec, and mail
    may still wait for it. Taken: another pool has it. Idle: no SenderPool uses it."""
    leased_to: str = ""
    """The SenderPool that may send from it."""
    quarantine: QuarantineStatus | None = None
    """Absent: new mail is given to it as its weight says."""
    conditions: Conditions = ()


class IPPoolStatus(KindStatus):
    usable: str = ""
    """Addresses to which new mail is given, of all: `3/4`."""
    used_by: str = ""
    """The SenderPool that has the addresses."""
    addresses: Annotated[tuple[AddressStatus, ...], Field(max_length=ENTRIES, json_schema_extra=_keyed("address"))] = ()


class SenderStatus(Section):
    """The senders of one Deployment of a pool."""

    name: str
    """The Deployment's."""
    destination: str = ""
    """The destination group; empty: all that have no senders of their own."""
    replicas: int = 0
    """Pods that it is asked for."""
    ready: int = 0
    """Pods that are ready."""
    most: int = 0
    """How many could be of use, by partitions and addresses."""


class SenderPoolStatus(KindStatus):
    replicas: int = 0
    """The most that any of its Deployments is asked for; what `scale` compares with `spec.replicas`."""
    ready_replicas: int = 0
    """Senders that are ready, of all its Deployments."""
    pods: str = ""
    """Senders that are ready, of all that are asked for: `3/4`."""
    selector: str = ""
    """The labels of its senders' pods."""
    senders: Annotated[tuple[SenderStatus, ...], Field(max_length=ENTRIES, json_schema_extra=_keyed("name"))] = ()
    address_count: int = 0
    """Addresses that it may send from."""
    eligible_deliveries: int | None = None
    """Deliveries that could be sent now; absent while nobody can tell."""
    oldest_age_seconds: int | None = None
    """How long the oldest of these waits."""
    limits_used_percent: int | None = None
    """How much of what the receivers' limits allow is in use."""


class DestinationStatus(KindStatus):
    site: str = ""
    """The name of its site, as in queues, events and limits."""
    group: str = ""
    """The destination group that its mail belongs to."""
    sender_pools: Names = ()
    """The SenderPools whose senders deliver to it."""


class RecordStatus(Section):
    """One DNS record of a domain."""

    name: str
    """Where it must be published."""
    type: Literal["TXT", "CNAME", "MX", "A", "AAAA"]
    value: str
    """What must be published."""
    purpose: Literal["DKIM", "SPF", "DMARC", "ReturnPath", "Tracking"]
    state: Literal["Published", "Missing", "Wrong", "Unknown"] = "Unknown"
    message: str = ""
    """What is wrong with it."""


class SendingDomainStatus(KindStatus):
    domain: str = ""
    """As in the spec."""
    active_selectors: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Selectors of the keys that sign."""
    signs_with: str = ""
    """The same, for a line of `kubectl get`."""
    verified: str = ""
    """Records that are published as they must be, of all: `3/4`."""
    records: Annotated[tuple[RecordStatus, ...], Field(max_length=64)] = ()


class SubmitterStatus(KindStatus):
    username: str = ""
    """The name with which it signs in."""
    sender_pools: Names = ()
    """The SenderPools that send its mail: that of its own stream first."""
    ip_pools: Names = ()
    """The IPPools from whose addresses its mail leaves."""
