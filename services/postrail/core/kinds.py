"""The Kubernetes kinds of Postrail: what their specs say, and how each is shown. `postrail.io/v1alpha1`, all namespaced.

Made of the sections of the configuration file where the fact is the same. `tools/crds.py` makes the CRDs of the chart from these
models; the operator validates objects with them again, because a CRD cannot say everything. Rules that the API server can
check stand beside the model's own check, as CEL. Neighbours: `kind_specs` (the specs), `kind_status`.

Fields that do nothing in this release are kept for a later one. `Spec.not_yet_acting` names those that an object sets, and the
operator shows them in the condition `Honoured`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from postrail.core.kind_specs import (
    DestinationSpec,
    IPPoolSpec,
    SenderPoolSpec,
    SendingDomainSpec,
    Spec,
    SubmitterSpec,
)
from postrail.core.kind_status import (
    DestinationStatus,
    IPPoolStatus,
    KindStatus,
    SenderPoolStatus,
    SendingDomainStatus,
    SubmitterStatus,
)

GROUP = "postrail.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. `wide`: only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule about the whole object, its name included."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its names, models and columns."""

    name: str
    plural: str
    short_names: tuple[str, ...]
    text: str
    spec: type[Spec]
    status: type[KindStatus]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    scale: bool = False
    """Whether `kubectl scale` and autoscalers act on it."""

    @property
    def singular(self) -> str:
        """The name in small letters."""
        return self.name.lower()

    @property
    def crd_name(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _condition(name: str, *, wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{name}")].status', wide=wide)


def _reason(name: str, of: str, *, wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{of}")].reason', wide=wide)


_STATE = _reason("State", "Ready")
"""Why it is ready, or is not: the word that a person looks for."""
_BECAUSE = _reason("Because", "Accepted", wide=True)
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

IP_POOL = Kind(
    "IPPool",
    "ippools",
    ("ipp",),
    "Source addresses from which mail leaves, and how they are bound.",
    IPPoolSpec,
    IPPoolStatus,
    (
        Column("Binding", ".spec.binding.mode"),
        Column("Usable", ".status.usable"),
        Column("Used by", ".status.usedBy"),
        _condition("Accepted"),
        _condition("Ready"),
        _STATE,
        _condition("Honoured", wide=True),
        _BECAUSE,
        _AGE,
    ),
)
SENDER_POOL = Kind(
    "SenderPool",
    "senderpools",
    ("sp",),
    "The senders of one stream of mail: from which addresses, and how many of them run.",
    SenderPoolSpec,
    SenderPoolStatus,
    (
        Column("Stream", ".spec.stream"),
        Column("IP pool", ".spec.ipPoolRef.name"),
        Column("Replicas", ".spec.replicas", "integer"),
        Column("Pods", ".status.pods"),
        Column("Eligible", ".status.eligibleDeliveries", "integer"),
        Column("Oldest s", ".status.oldestAgeSeconds", "integer"),
        Column("Limits %", ".status.limitsUsedPercent", "integer", wide=True),
        _condition("Accepted"),
        _condition("Ready"),
        _STATE,
        _reason("Scaling", "Scaled"),
        _BECAUSE,
        _AGE,
    ),
    (
        Rule(
            "self.metadata.name.matches('^[a-z0-9][a-z0-9-]{0,29}$')",
            "the name becomes part of the names of topics and Deployments: small letters, digits and hyphens, 30 at most",
        ),
    ),
    scale=True,
)
DESTINATION = Kind(
    "Destination",
    "destinations",
    ("dest",),
    "A site of many domains, such as a mailbox provider, and what it allows. The one named default is about all others.",
    DestinationSpec,
    DestinationStatus,
    (
        Column("Group", ".status.group"),
        Column("Connections", ".spec.limits.connections", "integer"),
        Column("Messages/s", ".spec.limits.messagesPerSecond", "number"),
        Column("Suspended", ".spec.limits.suspend", "boolean"),
        _condition("Accepted"),
        _condition("Ready"),
        _STATE,
        _condition("Honoured", wide=True),
        _BECAUSE,
        _AGE,
    ),
    (
        Rule(
            "self.metadata.name != 'default' || (size(self.spec.mxSuffixes) == 0 && size(self.spec.domains) == 0 && "
            "!has(self.spec.group))",
            "the Destination named default is about every site that no other covers: it has limits, but no mxSuffixes, "
            "domains or group",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z0-9][a-z0-9-]{0,62}$')",
            "the name becomes the name of a site: letters, digits and hyphens, 63 at most",
        ),
    ),
)
SENDING_DOMAIN = Kind(
    "SendingDomain",
    "sendingdomains",
    ("sd",),
    "A domain that mail is sent from: its DKIM keys, and the DNS records that it needs.",
    SendingDomainSpec,
    SendingDomainStatus,
    (
        Column("Domain", ".spec.domain"),
        Column("Records", ".status.verified"),
        Column("Selectors", ".status.signsWith"),
        _condition("Accepted"),
        _condition("Verified"),
        _reason("State", "Verified"),
        _condition("Honoured", wide=True),
        _BECAUSE,
        _AGE,
    ),
)
SUBMITTER = Kind(
    "Submitter",
    "submitters",
    ("sub",),
    "Who may submit mail: the password, the sender domains, the stream.",
    SubmitterSpec,
    SubmitterStatus,
    (
        Column("Username", ".status.username"),
        Column("Stream", ".spec.stream"),
        Column("Per minute", ".spec.messagesPerMinute", "integer", wide=True),
        _condition("Accepted"),
        _condition("Ready"),
        _STATE,
        _BECAUSE,
        _AGE,
    ),
)
KINDS: tuple[Kind, ...] = (IP_POOL, SENDER_POOL, DESTINATION, SENDING_DOMAIN, SUBMITTER)
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


class InvalidObject(ValueError):
    """A spec that cannot be used; the text has one problem a line, each with the path of the field."""


def read_spec(kind: Kind, spec: object) -> Spec:
    """The spec of an object, as the API server gives it.

    Raises:
        InvalidObject: wrong or unknown fields.
    """
    try:
        return kind.spec.model_validate(spec, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidObject("\n".join(_problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(["spec", *(to_camel(step) if isinstance(step, str) else str(step) for step in problem["loc"])])
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return lines


def write_status(status: KindStatus) -> dict[str, object]:
    """A status as the API server takes it. What nobody knows is left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
