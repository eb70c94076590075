"""The configuration: one file for all services. A person writes it in the embedded mode, the operator in a cluster.

Owns the shape, the defaults and the checks that need nothing but the file itself. Reading it, and checks that need the
machine (files, addresses), are in `postrail.shell.configuration`.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from postrail.core.blobs_config import BlobsConfig
from postrail.core.checks_config import ChecksConfig
from postrail.core.egress_config import EgressSection
from postrail.core.log_config import DAY_SECONDS, LogConfig
from postrail.core.nameservers import parse_nameserver
from postrail.core.section import Section
from postrail.core.units import Bytes, Seconds


def _address(text: str) -> str:
    return str(ip_address(text))


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


def _domain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _nameserver(text: str) -> str:
    return str(parse_nameserver(text))


RECIPIENT_BYTES = 1024
"""At most in a record: an address (RFC 5321 §4.5.3.1.3), its ORCPT (RFC 3461 §4.2) and what stands between."""

IPAddress = Annotated[
    str, BeforeValidator(_address), Field(json_schema_extra={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
]
IPNetwork = Annotated[str, BeforeValidator(_network)]
NameserverText = Annotated[str, BeforeValidator(_nameserver)]
Domain = Annotated[str, BeforeValidator(_domain), Field(min_length=1, max_length=255)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class ListenerKind(StrEnum):
    SUBMISSION = "submission"
    """STARTTLS, then AUTH (port 587)."""
    SUBMISSIONS = "submissions"
    """TLS from the first byte, then AUTH (port 465)."""
    TRUSTED = "trusted"
    """No AUTH: the client's address decides (port 25)."""


class ListenerConfig(Section):
    kind: ListenerKind
    address: IPAddress = "0.0.0.0"  # noqa: S104  # a mail server's listener faces the network
    port: Port
    networks: tuple[IPNetwork, ...] = ()
    """TRUSTED: who may submit here."""
    submitter: str = ""
    """TRUSTED: whose sender domains, stream and quotas apply."""
    proxy_protocol_from: tuple[IPNetwork, ...] = ()
    """Balancers whose PROXY protocol header is believed (a later release); must be empty."""

    @model_validator(mode="after")
    def _trusted_is_complete(self) -> Self:
        if self.kind is ListenerKind.TRUSTED and not (self.networks and self.submitter):
            raise ValueError("a trusted listener needs networks (who may submit) and submitter (as whom)")
        if self.kind is not ListenerKind.TRUSTED and (self.networks or self.submitter):
            raise ValueError("networks and submitter are for trusted listeners only")
        if self.proxy_protocol_from:
            raise ValueError("the PROXY protocol is not supported yet; remove proxy_protocol_from")
        return self


class TLSConfig(Section):
    """The certificate that the listeners show; read again when the files change."""

    certificate_file: str
    key_file: str
    reload_seconds: Seconds = 60.0


class IngressLimits(Section):
    max_message_bytes: Bytes = 25 << 20
    max_header_bytes: Bytes = 256 << 10
    max_line_bytes: Bytes = 512 << 10
    """A longer line of content is refused with 500 5.6.0 (RFC 5321 allows refusing above 1,000)."""
    max_recipients: Count = 1000
    max_connections: Count = 5000
    max_connections_per_client: Count = 200
    max_messages_per_connection: Count = 100_000
    max_errors_per_connection: Count = 10
    """Then 421 4.7.0. Protocol errors and refused commands count."""
    new_connections_per_client_per_minute: Count = 6000
    command_timeout_seconds: Seconds = 300.0
    data_timeout_seconds: Seconds = 180.0
    """Longest silence within DATA or BDAT."""
    message_timeout_seconds: Seconds = 600.0
    """Longest time from DATA to the final dot."""
    spool_memory_bytes: Bytes = 64 << 20
    """Content of all sessions together that may be in memory; beyond that it goes to the blob store as it comes in."""
    auth_failures_before_421: Count = 3
    auth_failure_delay_seconds: Seconds = 1.0
    """Doubled with every failure of the same client address, up to 30 s."""


class IngressConfig(Section):
    listeners: tuple[ListenerConfig, ...] = ()
    tls: TLSConfig | None = None
    limits: IngressLimits = IngressLimits()
    max_queue_records: Count = 2_000_000
    """Submission answers 452 4.3.1 when this many records wait for signing on a worker."""

    @model_validator(mode="after")
    def _tls_where_needed(self) -> Self:
        if self.tls is None:
            for index, listener in enumerate(self.listeners):
                if listener.kind is not ListenerKind.TRUSTED:
                    raise ValueError(
                        f"listeners[{index}] ({listener.kind}) needs a certificate: set ingress.tls.certificate_file and key_file"
                    )
        return self


class SubmitterRules(Section):
    """What a submitter may do."""

    domains: tuple[Domain, ...]
    """Sender domains of this submitter; `*` allows all (for trusted relays), `.example.com` all names below."""
    stream: Name = "transactional"
    """The stream of its messages where no control header chooses another."""
    streams: tuple[Name, ...] = ()
    """Streams that its control header may choose; its own is always allowed."""
    messages_per_minute: Count | None = None
    """More are refused for the moment (450); absent: no bound."""
    null_sender: bool = False
    """Whether it may send from the null reverse path."""


class SubmitterConfig(SubmitterRules):
    """Who may submit, and as whom."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    password_hash: SecretStr | None = None
    """argon2id, as `postrail password-hash` prints it; None: no AUTH as this submitter (trusted listeners only)."""
    password_hash_file: str | None = None
    """Where `password_hash` stands instead; read at the start, a line break at its end does not count."""

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.password_hash is not None and self.password_hash_file is not None:
            raise ValueError("give the hash in one place: password_hash, or password_hash_file")
        return self


class StreamConfig(Section):
    """A kind of mail with its own pool and lifetime."""

    pool: Name = "default"
    lane: Literal["urgent", "bulk"] = "bulk"
    lifetime_seconds: Seconds = 5 * DAY_SECONDS


class AddressConfig(Section):
    """One dedicated IP address."""

    address: IPAddress
    """The IP address from which connections leave, IPv4 or IPv6."""
    ehlo: Domain
    """The name with which it greets; its PTR record should be this."""
    weight: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Its share of new mail, relative to the pool's other addresses; 0: none."""


class SourceConfig(AddressConfig, EgressSection):
    """One dedicated IP address, and how mail leaves from it."""


class PoolConfig(Section):
    sources: tuple[SourceConfig, ...]
    """Empty only over Kafka: nothing leaves from this pool, and its mail waits."""


class KeyConfig(Section):
    """A DKIM key of a signing domain."""

    selector: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]
    key_file: str
    """PEM, RSA of 2048 bits or more, or Ed25519."""


class SigningDomainConfig(Section):
    keys: Annotated[tuple[KeyConfig, ...], Field(min_length=1)]


class SigningConfig(Section):
    domains: dict[Domain, SigningDomainConfig] = {}
    """Signing domains; a From domain below one of them is signed with its keys."""
    require: bool = True
    """Mail of a From domain without keys waits (and submission answers 451) instead of going unsigned. False: such
    domains are sent unsigned, for relays of mail that is signed already; a domain listed above is never sent unsigned."""
    key_reload_seconds: Seconds = 60.0


class LmtpConfig(Section):
    """A local domain's store: `unix:PATH`, or a host and a port."""

    host: str
    port: Port = 24


class SmarthostConfig(Section):
    host: str
    port: Port = 25


class DnsConfig(Section):
    nameservers: tuple[NameserverText, ...] = ()
    """`ADDRESS` or `ADDRESS:PORT` (`[ADDRESS]:PORT` for IPv6); empty: the machine's resolvers."""
    timeout_seconds: Seconds = 5.0
    tries: Count = 3
    max_ttl_seconds: Seconds = 3600.0
    negative_ttl_seconds: Seconds = 60.0
    cache_entries: Count = 100_000


class ProviderConfig(Section):
    """A site of many domains: it covers a domain only if every MX host matches one of its suffixes."""

    name: Name
    mx_suffixes: tuple[Domain, ...] = ()
    domains: tuple[Domain, ...] = ()
    group: Name | None = None
    """The destination group; None: the one of the same name where it exists, otherwise default."""


class RoutingConfig(Section):
    dns: DnsConfig = DnsConfig()
    local_domains: dict[Domain, LmtpConfig] = {}
    smarthosts: dict[Domain, SmarthostConfig] = {}
    """By recipient domain; `*` for all that nothing else matches before MX is looked up."""
    fallback_relay: SmarthostConfig | None = None
    """Where mail goes when every MX host of its domain could not be reached."""
    mx_port: Port = 25
    providers: tuple[ProviderConfig, ...] = ()
    """Added before the built-in ones; the same name replaces."""
    groups: tuple[Name, ...] = ("gmail", "yahoo", "microsoft", "apple", "default")
    """Destination groups, each with its own topic and sender in each pool."""
    allow_loopback: bool = False
    """Deliver to loopback addresses: tests and demonstrations only."""
    max_recipients_per_delivery: Annotated[int, Field(ge=1, le=1000)] = 100

    @model_validator(mode="after")
    def _default_group(self) -> Self:
        if "default" not in self.groups:
            raise ValueError("groups must contain default")
        for provider in self.providers:
            if provider.group is not None and provider.group not in self.groups:
                raise ValueError(f"providers ({provider.name}): there is no group {provider.group!r} under groups")
        return self


class SourceLimits(Section):
    """What one source IP may do to one site. None: not said here, a wider rule decides."""

    connections: Count | None = None
    """At the same time, over all processes."""
    messages_per_connection: Count | None = None
    """After so many the connection is closed."""
    messages_per_second: Annotated[float, Field(gt=0)] | None = None
    """In the long run; a tenth of them may come at once."""
    new_connections_per_minute: Annotated[float, Field(gt=0)] | None = None
    """In the long run; a tenth of them may come at once."""
    tls_required: bool | None = None
    """True lets mail wait rather than send it in clear."""
    suspend: bool | None = None
    """True sends nothing there: mail is parked, and goes from minutes after the end of it on, as the other limits and
    retry.returns_per_second allow."""


class LimitsConfig(SourceLimits):
    """The same for every source IP, and for single ones."""

    sources: dict[IPAddress, SourceLimits] = {}
    """The same for single source IPs; these win over the fields beside them."""


class TimeoutsConfig(Section):
    """RFC 5321 §4.5.3.2."""

    connect_seconds: Seconds = 30.0
    greeting_seconds: Seconds = 300.0
    ehlo_seconds: Seconds = 300.0
    starttls_seconds: Seconds = 120.0
    mail_seconds: Seconds = 300.0
    rcpt_seconds: Seconds = 300.0
    data_seconds: Seconds = 120.0
    block_seconds: Seconds = 180.0
    final_dot_seconds: Seconds = 600.0
    rset_seconds: Seconds = 20.0
    quit_seconds: Seconds = 5.0
    idle_seconds: Seconds = 60.0


class RetryConfig(Section):
    delays_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (300.0, 900.0, 3600.0, 14400.0)
    """After the first, second, … attempt; the last one repeats."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Each delay is shortened by up to this fraction."""
    tiers_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (60.0, 300.0, 900.0, 3600.0, 14400.0)
    """The deferral topics; a delay takes the smallest tier that is not shorter."""
    delay_warning_seconds: Seconds = 4 * 3600.0
    """When a warning DSN is sent to those who asked for it."""
    site_backoff_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (60.0, 300.0, 900.0, 3600.0)
    """How long a site is left alone for one source IP after it could not be reached, doubling as listed."""
    returns_per_second: Annotated[float, Field(gt=0)] = 25.0
    """What comes back at most to a site that was left alone, for one source IP: it may be down still, and each costs then."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.tiers_seconds) != sorted(set(self.tiers_seconds)):
            raise ValueError("tiers_seconds must ascend")
        if max(self.delays_seconds) > self.tiers_seconds[-1]:
            raise ValueError("the longest of delays_seconds must not exceed the last tier")
        return self


class OutboundTls(StrEnum):
    OPPORTUNISTIC = "opportunistic"
    NONE = "none"


class DeliveryConfig(Section):
    tls: OutboundTls = OutboundTls.OPPORTUNISTIC
    default_limits: LimitsConfig = LimitsConfig()
    provider_limits: dict[Name, LimitsConfig] = {}
    site_limits: dict[str, LimitsConfig] = {}
    domain_limits: dict[Domain, LimitsConfig] = {}
    timeouts: TimeoutsConfig = TimeoutsConfig()
    retry: RetryConfig = RetryConfig()
    max_in_memory: Count = 10_000
    """Deliveries that one sender holds at a time."""
    max_site_queue: Count = 5000
    """Deliveries in memory for one source IP and site; the rest is parked if it would wait longer than the first tier."""
    drain_seconds: Seconds = 30.0
    """How long a stopping sender waits for transactions past the final dot."""


class HealthConfig(Section):
    address: IPAddress = "127.0.0.1"
    port: Port = 9464
    """The first worker's port, or the service's; 0 picks a free one. Worker N listens on port + N."""


class LoggingConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str | None = None
    """None: standard error."""


class Config(Section):
    """The whole file."""

    hostname: Domain
    data_directory: str
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    log: LogConfig = LogConfig()
    blobs: BlobsConfig = BlobsConfig()
    ingress: IngressConfig = IngressConfig()
    submitters: tuple[SubmitterConfig, ...] = ()
    streams: dict[Name, StreamConfig] = {"transactional": StreamConfig(lane="urgent"), "marketing": StreamConfig()}
    pools: Annotated[dict[Name, PoolConfig], Field(min_length=1)]
    signing: SigningConfig = SigningConfig()
    routing: RoutingConfig = RoutingConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    checks: ChecksConfig = ChecksConfig()
    health: HealthConfig = HealthConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _references(self) -> Self:
        for name, stream in self.streams.items():
            if stream.pool not in self.pools:
                raise ValueError(f"streams.{name}.pool: there is no pool {stream.pool!r} under pools")
        names = [submitter.name for submitter in self.submitters]
        for submitter in self.submitters:
            if names.count(submitter.name) > 1:
                raise ValueError(f"submitters: the name {submitter.name!r} stands twice")
            for stream_name in (submitter.stream, *submitter.streams):
                if stream_name not in self.streams:
                    raise ValueError(f"submitters ({submitter.name}): there is no stream {stream_name!r} under streams")
        for index, listener in enumerate(self.ingress.listeners):
            if listener.submitter and listener.submitter not in names:
                raise ValueError(
                    f"ingress.listeners[{index}].submitter: there is no submitter {listener.submitter!r} under submitters"
                )
        return self

    @model_validator(mode="after")
    def _records_fit(self) -> Self:
        if self.log.kind == "kafka" and self.log.kafka is not None:
            limits = self.ingress.limits
            needed = self.blobs.inline_limit_bytes + limits.max_header_bytes + limits.max_recipients * RECIPIENT_BYTES
            if self.log.kafka.max_record_bytes < needed:
                raise ValueError(
                    f"log.kafka.max_record_bytes is {self.log.kafka.max_record_bytes}, but a record can have {needed} bytes "
                    "(blobs.inline_limit_bytes, ingress.limits.max_header_bytes, and 1 KiB for each of max_recipients): raise "
                    "it, or lower one of these"
                )
        return self

    @model_validator(mode="after")
    def _retention_exceeds_lifetimes(self) -> Self:
        longest = max((stream.lifetime_seconds for stream in self.streams.values()), default=0.0)
        needed = longest + 3 * DAY_SECONDS
        if self.log.retention_seconds < needed:
            raise ValueError(
                f"log.retention_seconds is {self.log.retention_seconds:g}, but mail can live {longest:g} s and must be "
                f"kept 3 days longer: set it to {needed:g} or more"
            )
        return self

    @model_validator(mode="after")
    def _rebalance_outlasts_drain(self) -> Self:
        kafka = self.log.kafka
        if kafka is not None and kafka.rebalance_timeout_seconds <= self.delivery.drain_seconds:
            raise ValueError(
                f"log.kafka.rebalance_timeout_seconds is {kafka.rebalance_timeout_seconds:g}, but a sender that hands its "
                f"partitions over may wait delivery.drain_seconds ({self.delivery.drain_seconds:g}) for its transactions: "
                "set it to a longer time"
            )
        return self

    @model_validator(mode="after")
    def _pools_have_sources(self) -> Self:
        if self.log.kind != "kafka":
            for name, pool in self.pools.items():
                if not pool.sources:
                    raise ValueError(
                        f"pools.{name}.sources is empty, so its mail could not leave: add a source address"
                    )
        return self

    @model_validator(mode="after")
    def _source_leaves_one_way(self) -> Self:
        ways: dict[str, EgressSection] = {}
        for name, pool in self.pools.items():
            for source in pool.sources:
                way = EgressSection(bind=source.bind, proxy=source.proxy, proxy_login=source.proxy_login)
                if ways.setdefault(source.address, way) != way:
                    raise ValueError(
                        f"pools.{name}: {source.address} stands twice, with another bind, proxy or proxy_login: an address "
                        "leaves one way"
                    )
        return self

    @model_validator(mode="after")
    def _source_has_one_pool(self) -> Self:
        if self.log.kind != "kafka":
            return self
        pool_of: dict[str, str] = {}
        for name, pool in self.pools.items():
            for source in pool.sources:
                other = pool_of.setdefault(source.address, name)
                if other != name:
                    raise ValueError(
                        f"pools.{name}: {source.address} is in the pool {other!r}, too; over Kafka each pool has senders "
                        "of its own, which could not keep that address's limits together: give it to one pool"
                    )
        return self
