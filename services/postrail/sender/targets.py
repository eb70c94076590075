"""Which addresses to try for a delivery, in which order, and which never.

Owns the order of mail hosts (RFC 5321 §5.1: by preference, equal ones shuffled), the choice of addresses that match the
source's family, and the refusal of targets that are this system or its loopback. Opens nothing: `session` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from postrail.core.config import Config
from postrail.core.dns_answers import AddressAnswer, DnsStatus, MxHost
from postrail.core.ingress_config import ListenerConfig
from postrail.core.records import RouteKind
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.routes import may_receive, own_names, without_ourselves
from postrail.core.routing_config import SmarthostConfig
from postrail.sender.egress import same_family
from postrail.shell.dns import Resolver

MAX_HOSTS = 10
MAX_ADDRESSES = 4
"""Of one host; more would only prolong the way to the next."""


class NextHop(NamedTuple):
    """A set of hosts that any of a group of deliveries may be given to."""

    kind: RouteKind
    port: int
    hosts: tuple[MxHost, ...]

    @property
    def names(self) -> frozenset[str]:
        """The hosts' names."""
        return frozenset(host.host for host in self.hosts)


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one host. `fallback` marks the configured relay of last resort."""

    host: str
    address: str
    port: int
    fallback: bool = False


class TargetFinder:
    """Finds targets by the rules of one configuration."""

    def __init__(self, config: Config, resolver: Resolver, jitter: Callable[[], float]) -> None:
        self._resolver = resolver
        self._jitter = jitter
        self._allow_loopback = config.routing.allow_loopback
        self._fallback = config.routing.fallback_relay
        self._own_names = own_names(config)
        self._own_ports = {listener.port for listener in config.ingress.listeners}
        self._own_addresses = _own_addresses(config, config.ingress.listeners)

    def hosts(self, hop: NextHop) -> list[tuple[str, int, bool]]:
        """Host, port and whether it is the fallback relay, in the order of trying."""
        hosts = hop.hosts
        if hop.kind is RouteKind.MX:
            hosts = without_ourselves(hosts, self._own_names)
        ordered = sorted(hosts, key=lambda host: (host.preference, self._jitter()))
        found = [(host.host, hop.port, False) for host in ordered[:MAX_HOSTS]]
        if self._fallback is not None and hop.kind is RouteKind.MX:
            found.append((_unbracketed(self._fallback), self._fallback.port, True))
        return found

    async def addresses(
        self, hop: NextHop, host: str, port: int, source: str, *, fallback: bool
    ) -> list[str] | Failure:
        """The addresses of one host that may be tried, or why there are none."""
        if host.startswith("unix:") or _is_address(host):
            answer = AddressAnswer(DnsStatus.FOUND, (host,))
        else:
            answer = await self._resolver.addresses(host)
        if answer.status is not DnsStatus.FOUND:
            return _temporary(f"{host} has no address: {answer.detail or answer.status}")
        usable = [address for address in answer.addresses if host.startswith("unix:") or same_family(source, address)]
        if not usable:
            return _temporary(f"{host} has no address of the family of the source {source}")
        if hop.kind is RouteKind.MX and not fallback:
            allowed = [address for address in usable if self._may_try(address, port)]
            if not allowed:
                return _loop(f"{host} leads back to this machine ({', '.join(usable)})")
            usable = allowed
        return usable[:MAX_ADDRESSES]

    def _may_try(self, address: str, port: int) -> bool:
        if port in self._own_ports and address in self._own_addresses:
            return False
        return self._allow_loopback or may_receive(ip_address(address))


def _own_addresses(config: Config, listeners: Iterable[ListenerConfig]) -> frozenset[str]:
    bound = {listener.address for listener in listeners}
    if any(ip_address(address).is_unspecified for address in bound):
        bound |= {source.address for pool in config.pools.values() for source in pool.sources}
    return frozenset(bound)


def joined(failures: Sequence[Failure]) -> Failure:
    """The one failure that stands for all hosts: permanent only if each of them is; otherwise the last temporary one."""
    return next((failure for failure in reversed(failures) if isinstance(failure, TemporaryFailure)), failures[-1])


def _temporary(text: str) -> TemporaryFailure:
    return TemporaryFailure(Reply(451, "4.4.4", text), Scope.SITE, internal=True)


def _loop(text: str) -> PermanentFailure:
    return PermanentFailure(Reply(554, "5.4.6", text), Scope.SITE, internal=True)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _unbracketed(relay: SmarthostConfig) -> str:
    return relay.host.removeprefix("[").removesuffix("]")
