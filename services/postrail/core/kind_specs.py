"""The specs of the Kubernetes kinds (`kinds` has their names and columns).

A rule across fields stands twice: as CEL for the API server, which refuses the object at once, and as a check of the model for
objects that came another way. Fields listed under `IDLE` do nothing in this release.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from postrail.core.config import AddressConfig
from postrail.core.config_values import Count, Domain, Name
from postrail.core.delivery_config import LimitsConfig
from postrail.core.egress_config import ProxyText
from postrail.core.ingress_config import SubmitterRules
from postrail.core.log_config import DAY_SECONDS
from postrail.core.section import Section
from postrail.core.units import Seconds

Proxy = Annotated[ProxyText, Field(max_length=300, pattern=r"^socks5://\S+$")]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Ratio = Annotated[float, Field(gt=0, le=1)]


def _rules(*rules: tuple[str, str]) -> ConfigDict:
    """CEL rules of a model: (rule, message) each."""
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}
    )


class Spec(Section):
    """What every spec has."""

    IDLE: ClassVar[dict[str, str]] = {}
    """Fields that do nothing yet (by their name here), with what happens instead."""

    def not_yet_acting(self) -> dict[str, str]:
        """The fields that this object sets and that do nothing in this release, with what happens instead."""
        return {name: text for name, text in self.IDLE.items() if getattr(self, name) is not None}


class ObjectRef(Section):
    """An object of the same namespace."""

    name: ObjectName
    """Its name."""


class SecretKeyRef(Section):
    """One entry of a Secret of the same namespace."""

    name: ObjectName
    """The Secret's name."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """The entry's."""


# ---- IPPool ---------------------------------------------------------------------------------------------------------------


class BindingMode(StrEnum):
    """How mail leaves from an address."""

    DIRECT = "direct"
    """The senders run on the host network of nodes that have the addresses."""
    SOCKS5 = "socks5"
    """The senders connect through a SOCKS5 proxy, which has the addresses."""
    EGRESS_GATEWAY = "egressGateway"
    """The cluster's network translates to the address (Cilium's egress gateway): one address a pool."""


class ProxyLoginSpec(Section):
    """With what the senders sign in to the proxy (RFC 1929)."""

    username: Annotated[str, Field(min_length=1, max_length=255)]
    """The user."""
    password_secret_ref: SecretKeyRef


class GatewaySpec(Section):
    """The nodes that translate."""

    node_selector: Annotated[dict[str, str], Field(min_length=1, max_length=32)]
    """Labels of the nodes that have the address."""


class BindingSpec(Section):
    """How the addresses of a pool are bound."""

    model_config = _rules(
        (
            "self.mode != 'direct' || (has(self.nodeSelector) && size(self.nodeSelector) > 0)",
            "direct needs nodeSelector: the labels of the nodes that have the addresses",
        ),
        ("self.mode != 'egressGateway' || !has(self.proxy)", "proxy is not for egressGateway"),
        ("self.mode == 'socks5' || !has(self.proxyLogin)", "proxyLogin is for socks5"),
        (
            "(self.mode == 'egressGateway') == has(self.gateway)",
            "gateway belongs to the mode egressGateway, which needs it",
        ),
    )

    mode: BindingMode = BindingMode.DIRECT
    """direct: on the network of nodes that have the addresses; socks5: through a proxy; egressGateway: the network translates."""
    node_selector: Annotated[dict[str, str], Field(max_length=32)] = {}
    """Labels of the nodes on which this pool's senders run. With `direct` these are the nodes that have its addresses: all of
    them on each, or each address with the proxy of its node, through which the senders on other nodes go."""
    proxy: Proxy | None = None
    """The proxy that has the pool's one address, `socks5://HOST:PORT`; with `direct` for senders on nodes without the address."""
    proxy_login: ProxyLoginSpec | None = None
    gateway: GatewaySpec | None = None

    @model_validator(mode="after")
    def _mode_is_described(self) -> Self:
        if self.mode is BindingMode.DIRECT and not self.node_selector:
            raise ValueError("direct needs nodeSelector: the labels of the nodes that have the addresses")
        if self.mode is BindingMode.EGRESS_GATEWAY and self.proxy is not None:
            raise ValueError("proxy is not for egressGateway")
        if self.mode is not BindingMode.SOCKS5 and self.proxy_login is not None:
            raise ValueError("proxyLogin is for socks5")
        if (self.mode is BindingMode.EGRESS_GATEWAY) != (self.gateway is not None):
            raise ValueError("gateway belongs to the mode egressGateway, which needs it")
        return self


class WarmupSpec(Section):
    """How a new address's daily quota grows. Not yet acting: addresses send as much as the limits allow."""

    started_on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """The first day, UTC."""
    first_day_messages: Count = 50
    """How many messages leave on the first day."""
    daily_growth: Annotated[float, Field(ge=1, le=10)] = 1.5
    """By what the quota is multiplied each day."""


class AddressSpec(AddressConfig):
    proxy: Proxy | None = None
    """The proxy that has this address, where the pool has several; it wins over `binding.proxy`."""


class QuarantineMode(StrEnum):
    """Who takes an address out of use."""

    BY_HAND = "byHand"
    """People, by the annotation postrail.io/quarantine."""
    AUTOMATIC = "automatic"
    """The operator, too: addresses that a block list has, that their senders lack, or that connections did not leave from. It
    leaves one address in use, and gives an address back when the check says that all is well."""


class IPPoolSpec(Spec):
    model_config = _rules(
        (
            "self.binding.mode != 'egressGateway' || self.addresses.all(a, !has(a.proxy))",
            "the proxy of an address is not for binding.mode egressGateway",
        ),
        (
            "self.binding.mode != 'socks5' || has(self.binding.proxy) || self.addresses.all(a, has(a.proxy))",
            "socks5 needs a proxy: binding.proxy, or one at each address",
        ),
        (
            "self.binding.mode != 'egressGateway' || size(self.addresses) == 1",
            "an egress gateway chooses the address by the pod, so such a pool has one address: make a pool for each",
        ),
    )
    IDLE = {"warmup": "addresses send as much as the limits allow from the first day"}

    addresses: Annotated[
        tuple[AddressSpec, ...],
        Field(
            min_length=1,
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["address"]},
        ),
    ]
    """Each in one IPPool only."""
    binding: BindingSpec
    quarantine: QuarantineMode = QuarantineMode.BY_HAND
    """Who takes an address out of use: `byHand` (the default), or the operator, too (`automatic`)."""
    warmup: WarmupSpec | None = None
    """Kept for a later release; set, the condition Honoured is False."""

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        addresses = [source.address for source in self.addresses]
        twice = next((address for address in addresses if addresses.count(address) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice under addresses")
        proxies = [source.proxy or self.binding.proxy for source in self.addresses]
        if self.binding.mode is BindingMode.EGRESS_GATEWAY and any(proxies):
            raise ValueError("the proxy of an address is not for binding.mode egressGateway")
        if self.binding.mode is BindingMode.SOCKS5 and not all(proxies):
            raise ValueError("socks5 needs a proxy: binding.proxy, or one at each address")
        if self.binding.mode is BindingMode.EGRESS_GATEWAY and len(addresses) != 1:
            raise ValueError(
                "an egress gateway chooses the address by the pod, so such a pool has one address: make a pool for each"
            )
        return self


# ---- SenderPool -----------------------------------------------------------------------------------------------------------


class AutoscalingSpec(Section):
    """How many senders run, by the mail that could be sent now. It writes `spec.replicas`, as `kubectl scale` does."""

    model_config = _rules(("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas"))

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Senders of each Deployment, at least."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """Senders of each Deployment, at most."""
    target_drain_seconds: Annotated[Seconds, Field(ge=1)] = 60.0
    """Senders are added while the mail that could be sent now takes longer than this."""
    max_limits_used: Ratio = 0.8
    """None are added while so much of what the receivers' limits allow is used: more would send nothing more."""
    scale_up_stabilisation_seconds: Annotated[Seconds, Field(ge=0, le=3600)] = 30.0
    """Senders are added when they were needed for so long."""
    scale_down_stabilisation_seconds: Annotated[Seconds, Field(ge=0, le=3600)] = 300.0
    """Senders are taken away when they were not needed for so long."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("minReplicas must not exceed maxReplicas")
        return self


Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$")]


class ResourcesSpec(Section):
    """What each sender's container asks for, such as `cpu: 500m` and `memory: 512Mi`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=8)] = {}
    """What the node keeps free for it."""
    limits: Annotated[dict[str, Quantity], Field(max_length=8)] = {}
    """What it may use at most."""


class SenderPoolSpec(Spec):
    stream: Name
    """The stream whose mail it sends, such as `transactional`; each stream has one SenderPool."""
    lane: Literal["urgent", "bulk"] = "bulk"
    """Urgent mail is taken first at every stage."""
    lifetime_seconds: Annotated[Seconds, Field(ge=60, le=5 * DAY_SECONDS)] = 5 * DAY_SECONDS
    """How long delivery is tried before the sender is told that it failed."""
    ip_pool_ref: ObjectRef
    """The IPPool whose addresses it sends from; each IPPool has one SenderPool."""
    destinations: Annotated[
        tuple[Name, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Destination groups that get senders of their own, which scale and fail alone; one Deployment sends to all others."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Senders of each of its Deployments, no more than partitions and addresses make use of; 0: none, and mail waits."""
    autoscaling: AutoscalingSpec | None = None
    suspend: bool = False
    """True stops sending, and mail waits; `replicas` stays what it was."""
    resources: ResourcesSpec = ResourcesSpec()


# ---- Destination ----------------------------------------------------------------------------------------------------------


class TlsPolicySpec(Section):
    """How a site's certificate is judged. Not yet acting; `limits.tlsRequired` refuses to send in clear."""

    mode: Literal["opportunistic", "required", "verified", "dane", "mtaSts"]
    """What is demanded of the site before mail is sent to it."""


class AutomationRule(Section):
    """What a reply of the site leads to."""

    reply_pattern: Annotated[str, Field(min_length=1, max_length=500)]
    """A regular expression on the reply's text."""
    action: Literal["suspend", "slowDown", "quarantine"]
    """What is done."""
    seconds: Annotated[Seconds, Field(ge=1)] = 3600.0
    """For how long."""


class DestinationSpec(Spec):
    IDLE = {
        "tls_policy": "TLS is opportunistic, or demanded by limits.tlsRequired",
        "automation": "replies change no limits",
    }

    mx_suffixes: Annotated[tuple[Domain, ...], Field(max_length=64)] = ()
    """It covers a domain whose MX hosts all end with one of these."""
    domains: Annotated[tuple[Domain, ...], Field(max_length=1000)] = ()
    """Domains that it covers whatever their MX hosts are."""
    group: Name | None = None
    """The destination group of its mail; absent: the one of its own name where there is one, otherwise default."""
    limits: LimitsConfig = LimitsConfig()
    """What one source address may do to the site."""
    tls_policy: TlsPolicySpec | None = None
    """Kept for a later release; set, the condition Honoured is False."""
    automation: Annotated[tuple[AutomationRule, ...], Field(max_length=64)] | None = None
    """Kept for a later release; set, the condition Honoured is False."""


# ---- SendingDomain --------------------------------------------------------------------------------------------------------


class DkimKeySpec(Section):
    """A DKIM key; every key signs."""

    selector: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]
    """The name under which the DNS has the public key: `SELECTOR._domainkey.DOMAIN`."""
    secret_ref: SecretKeyRef
    """The private key in PEM: RSA of 2048 bits or more, or Ed25519."""


class RotationSpec(Section):
    """When keys are replaced. Not yet acting: add a key, publish it, and remove the old one by hand."""

    every_days: Annotated[int, Field(ge=1, le=3650)] = 180
    """How old a key may become."""


class DkimSpec(Section):
    """How its mail is signed."""

    keys: Annotated[
        tuple[DkimKeySpec, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["selector"]},
        ),
    ]
    """Each signs every message: one RSA and one Ed25519, and a new one beside the old while it is published."""
    rotation: RotationSpec | None = None
    """Kept for a later release; set, the condition Honoured is False."""


class SendingDomainSpec(Spec):
    IDLE = {
        "return_path": "the submitter's envelope sender stays as it is",
        "tracking": "links and images stay as they are",
        "rotation": "keys stay until someone replaces them",
    }

    domain: Domain
    """The domain of the From field; it signs for the domains below it, too."""
    dkim: DkimSpec
    return_path: Domain | None = None
    """The host name of bounce addresses. Kept for a later release; set, the condition Honoured is False."""
    tracking: Domain | None = None
    """The host name of tracking links. Kept for a later release; set, the condition Honoured is False."""

    @property
    def rotation(self) -> RotationSpec | None:
        """As `dkim.rotation`."""
        return self.dkim.rotation


# ---- Submitter ------------------------------------------------------------------------------------------------------------


class SubmitterSpec(Spec, SubmitterRules):
    domains: Annotated[tuple[Domain, ...], Field(min_length=1, max_length=1000)]
    """Sender domains of this submitter; `*` allows all, `.example.com` all names below."""
    username: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """With which it signs in; absent: the object's name."""
    password_secret_ref: SecretKeyRef | None = None
    """The password's argon2id hash, as `postrail password-hash` prints it; absent: no AUTH (trusted listeners only)."""
