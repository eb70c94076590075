"""The configuration: one file for all services. A person writes it in the embedded mode, the operator in a cluster.

Owns the whole file, the smaller sections, and the checks across sections that need nothing but the file itself. The larger
sections are in `ingress_config`, `routing_config`, `delivery_config`, `log_config`, `blobs_config`, `checks_config` and
`egress_config`. Reading the file, and checks that need the machine (files, addresses), are in `postrail.shell.configuration`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from postrail.core.blobs_config import BlobsConfig
from postrail.core.checks_config import ChecksConfig
from postrail.core.config_values import Domain, IPAddress, Name, Port
from postrail.core.delivery_config import DeliveryConfig
from postrail.core.egress_config import EgressSection
from postrail.core.ingress_config import IngressConfig, SubmitterConfig
from postrail.core.log_config import DAY_SECONDS, LogConfig
from postrail.core.routing_config import RoutingConfig
from postrail.core.section import Section
from postrail.core.units import Seconds

RECIPIENT_BYTES = 1024
"""At most in a record: an address (RFC 5321 §4.5.3.1.3), its ORCPT (RFC 3461 §4.2) and what stands between."""


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
