"""Sites: where mail of many domains really goes, and which destination group serves it.

Owns the table of providers and the names of sites. A provider covers a domain only if every one of its MX hosts is the
provider's; all domains of a provider are one site. Other domains with the same MX hosts are one site, named after them.
Its neighbour `postrail.core.routes` asks; `postrail.core.limits` says what a site allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from postrail.core.address import ascii_domain
from postrail.core.dns_answers import MxHost
from postrail.core.routing_config import ProviderConfig, RoutingConfig

DEFAULT_GROUP = "default"
MAX_NAME_LENGTH = 120

BUILT_IN = (
    ProviderConfig(name="gmail", mx_suffixes=("google.com", "googlemail.com")),
    ProviderConfig(name="yahoo", mx_suffixes=("yahoodns.net",)),
    ProviderConfig(name="microsoft", mx_suffixes=("outlook.com", "mx.microsoft", "office365.com", "office365.us")),
    ProviderConfig(name="apple", mx_suffixes=("icloud.com",)),
    ProviderConfig(name="comcast", mx_suffixes=("comcast.net",)),
    ProviderConfig(name="orange", mx_suffixes=("orange.fr",)),
)
"""The providers that are known without configuration, by the host names of their public MX records."""


class Site(NamedTuple):
    """`provider` is "" where none covers the domain; otherwise `name` is the provider's."""

    name: str
    group: str
    provider: str = ""


class SiteTable:
    """The providers and groups of a configuration."""

    def __init__(self, config: RoutingConfig) -> None:
        configured = {provider.name for provider in config.providers}
        providers = [*config.providers, *(provider for provider in BUILT_IN if provider.name not in configured)]
        self._groups = frozenset(config.groups)
        self._sites = {provider.name: self._site(provider) for provider in providers}
        self._by_suffix: dict[str, str] = {}
        self._by_domain: dict[str, str] = {}
        for provider in providers:
            for suffix in provider.mx_suffixes:
                self._by_suffix.setdefault(ascii_domain(suffix.lstrip(".")), provider.name)
            for domain in provider.domains:
                self._by_domain.setdefault(ascii_domain(domain), provider.name)

    def of(self, domain: str, hosts: Sequence[MxHost]) -> Site:
        """The site of a recipient domain.

        Args:
            domain: in A-labels, lower case.
            hosts: its MX hosts; not empty.
        """
        name = self._by_domain.get(domain) or self._common_provider(hosts)
        if name is not None:
            return self._sites[name]
        return Site(name_of_hosts([host for _, host in hosts]), DEFAULT_GROUP)

    def named(self, name: str) -> Site | None:
        """The site of a provider; None where there is none of this name."""
        return self._sites.get(name)

    def count_in(self, group: str) -> int:
        """How many providers' sites a destination group has."""
        return sum(site.group == group for site in self._sites.values())

    def _site(self, provider: ProviderConfig) -> Site:
        group = provider.group or provider.name
        return Site(provider.name, group if group in self._groups else DEFAULT_GROUP, provider.name)

    def _common_provider(self, hosts: Sequence[MxHost]) -> str | None:
        """The provider to which every host belongs."""
        first = self._provider_of_host(hosts[0].host)
        if first is None or any(self._provider_of_host(host) != first for _, host in hosts[1:]):
            return None
        return first

    def _provider_of_host(self, host: str) -> str | None:
        """The provider with the longest suffix that ends the host's name at a dot."""
        suffix = host
        while True:
            name = self._by_suffix.get(suffix)
            if name is not None:
                return name
            _, dot, suffix = suffix.partition(".")
            if not dot:
                return None


def name_of_hosts(hosts: Iterable[str]) -> str:
    """A name for a set of MX hosts that is the same whatever their order and preferences.

    One host: its name. Several: joined by `+`; where that is too long, the first with the number of all and a digest.
    A host without a dot gets one at its end, so that no site is taken for a provider.
    """
    names = sorted(set(hosts))
    joined = "+".join(name if "." in name else f"{name}." for name in names)
    if len(joined) <= MAX_NAME_LENGTH:
        return joined
    digest = blake2b(joined.encode(), digest_size=6).hexdigest()
    return f"{names[0][:MAX_NAME_LENGTH]}+{len(names) - 1}-{digest}"
