"""Section `routing` of the configuration: DNS, local domains, smarthosts, providers and destination groups."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from postrail.core.config_values import Count, Domain, Name, NameserverText, Port
from postrail.core.section import Section
from postrail.core.units import Seconds


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
