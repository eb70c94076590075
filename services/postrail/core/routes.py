"""Where mail of a recipient goes and from which address: local store, smarthost or MX; pool and source IP.

Owns those decisions and what an answer of the DNS means for mail. Pure: `postrail.routing` brings the answers and writes the
deliveries, `postrail.cli.explain` shows the same decisions to a person. Neighbours: `postrail.core.sites` (provider, site and
group), `postrail.core.settle` (what becomes of recipients that cannot be routed).
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import accumulate

from postrail.core.address import BadAddress, ascii_domain, domain_of
from postrail.core.config import Config, PoolConfig, SourceConfig
from postrail.core.dns_answers import DnsStatus, MxAnswer, MxHost
from postrail.core.records import Envelope, MessageId, Recipient, Route, RouteKind
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.routing_config import LmtpConfig, SmarthostConfig
from postrail.core.sites import DEFAULT_GROUP, SiteTable
from postrail.core.value import value

SMTP_PORT = 25
_LITERAL_V6 = "ipv6:"


@dataclass(frozen=True, slots=True)
class Hop:
    """Where mail of one recipient domain goes.

    Attributes:
        hosts: what is tried, best first; empty unless the kind is MX.
        together: recipients of different domains whose hops agree in this share a delivery.
        why: for a person.
    """

    kind: RouteKind
    next_hop: str
    port: int
    site: str
    group: str
    together: Hashable
    hosts: tuple[MxHost, ...] = ()
    why: str = ""


@value
class Planned:
    """One delivery to make."""

    route: Route
    recipients: tuple[Recipient, ...]


@value
class Plan:
    """What becomes of the recipients of one message: deliveries, and those that cannot be routed (now, or at all)."""

    deliveries: Sequence[Planned]
    failed: Sequence[tuple[Recipient, Failure]]


Versions = Mapping[Hashable, frozenset[int]]
"""By `Hop.together`: 4, 6 or both; empty where no address is known."""
NO_VERSIONS: Versions = {}


class SourceChoice:
    """The source addresses of a pool, chosen by weight."""

    def __init__(self, pool: str, config: PoolConfig) -> None:
        self.pool = pool
        used = [source for source in config.sources if source.weight > 0]
        by_version = {version: [s for s in used if ip_address(s.address).version == version] for version in (4, 6)}
        self.mixed = all(by_version.values())
        """Whether there are IPv4 and IPv6 sources, so that the choice needs to know how the hosts can be reached."""
        self._all = _weighed(used)
        self._by_version = {version: _weighed(sources) for version, sources in by_version.items()}

    def pick(self, message_id: MessageId, versions: frozenset[int] = frozenset()) -> str | None:
        """The address for a message, the same at every retry while the pool stays as it is; None: every weight is 0.

        A receiver that greylists knows a sender by its address, so a retry must come from where the first attempt came.

        Args:
            versions: the IP versions of the hosts' addresses; empty where they are not known.
        """
        addresses, bounds = self._all
        if self.mixed and len(versions) == 1:
            addresses, bounds = self._by_version[min(versions)]
        if len(addresses) < 2:
            return addresses[0] if addresses else None
        return addresses[bisect_right(bounds, zlib.crc32(message_id.encode()) % bounds[-1])]


def _weighed(sources: Sequence[SourceConfig]) -> tuple[list[str], list[int]]:
    """Addresses, and the sums of the weights up to each."""
    return [source.address for source in sources], list(accumulate(source.weight for source in sources))


class Router:
    """The decisions of one configuration."""

    def __init__(self, config: Config) -> None:
        routing = config.routing
        self._mx_port = routing.mx_port
        self._allow_loopback = routing.allow_loopback
        self._max_recipients = routing.max_recipients_per_delivery
        self._own_names = own_names(config)
        self._sites = SiteTable(routing)
        of_all = routing.smarthosts.get("*")
        self._smarthost_of_all = None if of_all is None else _smarthost(of_all, "*")
        self._fixed: dict[str, Hop] = {
            **{ascii_domain(name): _smarthost(to, name) for name, to in routing.smarthosts.items() if name != "*"},
            **{ascii_domain(name): _local(to, name) for name, to in routing.local_domains.items()},
        }
        self._choices = {pool: SourceChoice(pool, sources) for pool, sources in config.pools.items()}
        self._pool_of_stream = {name: stream.pool for name, stream in config.streams.items()}
        self._pool_of_unknown = "default" if "default" in config.pools else next(iter(config.pools))

    def fixed(self, domain: str) -> Hop | PermanentFailure | None:
        """Where the configuration alone decides; None: the domain's MX must be looked up.

        Args:
            domain: as it stands in the recipient, lower case; an address literal keeps its brackets.
        """
        if not domain.isascii():
            try:
                domain = ascii_domain(domain)
            except BadAddress as error:
                return _permanent(553, "5.1.2", str(error))
        hop = self._fixed.get(domain)
        if hop is not None:
            return hop
        if not domain:
            return _permanent(553, "5.1.3", "the recipient's address has no domain")
        if self._smarthost_of_all is not None:
            return self._smarthost_of_all
        return self._literal(domain) if domain.startswith("[") else None

    def by_mx(self, domain: str, answer: MxAnswer) -> Hop | Failure:
        """What an answer about the domain's MX means (RFC 5321 §5.1, RFC 7505, RFC 3463 §3).

        Args:
            domain: in A-labels, lower case.
        """
        status = answer.status
        if status is DnsStatus.FOUND:
            return self._mx_hop(domain, answer)
        if status is DnsStatus.NULL_MX:
            return _permanent(556, "5.1.10", f"{domain} takes no mail: it publishes a null MX")
        if status is DnsStatus.NXDOMAIN:
            return _permanent(550, "5.1.2", f"the domain {domain} does not exist")
        if status is DnsStatus.NO_DATA:
            return _permanent(550, "5.4.4", f"the domain {domain} has neither MX nor address records")
        reply = Reply(451, "4.4.3", f"the DNS look-up of {domain} failed: {answer.detail}")
        return TemporaryFailure(reply, Scope.SITE, internal=True)

    def choice(self, stream: str) -> SourceChoice:
        """The sources of a stream's pool. A stream that the configuration no longer has takes the default pool."""
        return self._choices[self._pool_of_stream.get(stream, self._pool_of_unknown)]

    def plan(self, envelope: Envelope, hops: Mapping[str, Hop | Failure], versions: Versions = NO_VERSIONS) -> Plan:
        """Deliveries for the envelope's recipients, each to one next hop, in the order of the first recipients.

        Args:
            hops: by recipient domain, as `domain_of` gives it, for every recipient.
            versions: the IP versions by which each hop can be reached; needed where the pool's sources are mixed.
        """
        together: dict[Hashable, tuple[Hop, list[Recipient]]] = {}
        failed: list[tuple[Recipient, Failure]] = []
        choice = self.choice(envelope.stream)
        source = choice.pick(envelope.message_id)
        known = versions if choice.mixed else NO_VERSIONS
        for recipient in envelope.recipients:
            hop = hops[domain_of(recipient.address)]
            if not isinstance(hop, Hop):
                failed.append((recipient, hop))
            elif source is None and hop.kind is not RouteKind.LMTP:
                failed.append((recipient, _no_source(choice.pool)))
            else:
                together.setdefault(hop.together, (hop, []))[1].append(recipient)
        deliveries: list[Planned] = []
        for hop, recipients in together.values():
            chosen = choice.pick(envelope.message_id, known[hop.together]) if hop.together in known else source
            address = "" if hop.kind is RouteKind.LMTP or chosen is None else chosen
            route = Route(hop.kind, hop.next_hop, hop.port, hop.site, hop.group, choice.pool, address)
            deliveries += [
                Planned(route, tuple(recipients[start : start + self._max_recipients]))
                for start in range(0, len(recipients), self._max_recipients)
            ]
        return Plan(deliveries, failed)

    def _mx_hop(self, domain: str, answer: MxAnswer) -> Hop | Failure:
        hosts = without_ourselves(answer.hosts, self._own_names)
        if not hosts:
            return _permanent(554, "5.4.6", f"the MX of {domain} is this system, which does not hold its mailboxes")
        if not self._allow_loopback:
            hosts = tuple(host for host in hosts if not _is_localhost(host.host))
            if not hosts:
                return _permanent(550, "5.1.2", f"the MX of {domain} is localhost")
        site = self._sites.of(domain, hosts)
        why = "no MX record: the domain itself is the host" if answer.implicit else "MX"
        together = (site.name, hosts)
        return Hop(RouteKind.MX, domain, self._mx_port, site.name, site.group, together, hosts, why)

    def _literal(self, domain: str) -> Hop | PermanentFailure:
        """A recipient at an address literal (RFC 5321 §4.1.3)."""
        text = domain.removeprefix("[").removesuffix("]").removeprefix(_LITERAL_V6)
        try:
            address = ip_address(text)
        except ValueError:
            return _permanent(553, "5.1.3", f"{domain} is no address literal")
        if not (self._allow_loopback or may_receive(address)):
            return _permanent(550, "5.1.2", f"mail cannot be sent to {domain}")
        next_hop = str(address)
        together = (RouteKind.SMARTHOST, next_hop, self._mx_port)
        return Hop(
            RouteKind.SMARTHOST, next_hop, self._mx_port, f"[{address}]", DEFAULT_GROUP, together, why="address literal"
        )


def own_names(config: Config) -> frozenset[str]:
    """The host names that are this system: its own and those with which it greets."""
    names = {source.ehlo for pool in config.pools.values() for source in pool.sources}
    return frozenset(ascii_domain(name) for name in {config.hostname, *names})


def without_ourselves(hosts: tuple[MxHost, ...], ours: frozenset[str]) -> tuple[MxHost, ...]:
    """The hosts of better preference than this system's own, so that mail does not loop (RFC 5321 §5.1).

    Args:
        hosts: sorted by preference.
        ours: A-labels, lower case.
    """
    for preference, name in hosts:
        if name in ours:
            return tuple(host for host in hosts if host.preference < preference)
    return hosts


def hosts_of(hop: Hop) -> tuple[str, ...]:
    """The names (or the one address) to which a connection would be made; none for a local store."""
    if hop.kind is RouteKind.LMTP:
        return ()
    return tuple(host for _, host in hop.hosts) or (hop.next_hop,)


def may_receive(address: IPv4Address | IPv6Address) -> bool:
    """Whether mail may be sent to an address outside tests: no loopback, unspecified or multicast one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _local(to: LmtpConfig, domain: str) -> Hop:
    unix = to.host.startswith("unix:")
    port = 0 if unix else to.port
    site = to.host if unix else f"lmtp:{to.host}:{port}"
    together = (RouteKind.LMTP, to.host, port)
    return Hop(RouteKind.LMTP, to.host, port, site, DEFAULT_GROUP, together, why=f"local domain {domain}")


def _smarthost(to: SmarthostConfig, domain: str) -> Hop:
    host = to.host.removeprefix("[").removesuffix("]")
    site = host if to.port == SMTP_PORT else f"{host}:{to.port}"
    together = (RouteKind.SMARTHOST, host, to.port)
    return Hop(RouteKind.SMARTHOST, host, to.port, site, DEFAULT_GROUP, together, why=f"smarthost of {domain}")


def _permanent(code: int, enhanced: str, text: str) -> PermanentFailure:
    return PermanentFailure(Reply(code, enhanced, text), Scope.RECIPIENT, internal=True)


def _no_source(pool: str) -> TemporaryFailure:
    text = f"the pool {pool} has no source address with a weight above 0"
    return TemporaryFailure(Reply(451, "4.3.5", text), Scope.SITE, internal=True)
