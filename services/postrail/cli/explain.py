"""`postrail explain`: says how mail to an address would go, and what is in its way.

Shows the decisions of `postrail.core.routes` and `postrail.core.limits` with the configuration and the DNS as they are now.
Sends nothing. Exit status 0: mail can be delivered; 1: it would be returned; 75: it would wait (EX_TEMPFAIL); 78: the
configuration is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_TEMPORARY
from postrail.core.address import BadAddress, ascii_domain, check_recipient, domain_of
from postrail.core.config import Config
from postrail.core.delivery_config import OutboundTls
from postrail.core.dns_answers import AddressAnswer, DnsStatus, MxHost
from postrail.core.limits import Limits, limits_for
from postrail.core.records import RouteKind
from postrail.core.replies import Failure, PermanentFailure
from postrail.core.routes import Hop, Router, may_receive
from postrail.core.sites import SiteTable
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, load
from postrail.shell.dns import Resolver

EXIT_DELIVERABLE = 0
EXIT_UNDELIVERABLE = 1

_VERDICTS = {
    EXIT_DELIVERABLE: "deliverable",
    EXIT_UNDELIVERABLE: "undeliverable: it would be returned to the sender",
    EXIT_TEMPORARY: "not now: it would wait and be tried again",
}


@dataclass(frozen=True, slots=True)
class HostLine:
    """One host that would be tried."""

    preference: int
    host: str
    addresses: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One source address of the pool, with what it may do at this site."""

    address: str
    ehlo: str
    weight: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Explanation:
    """How mail to one address would go. Empty fields: it would not get that far."""

    address: str
    status: int
    domain: str = ""
    stream: str = ""
    kind: str = ""
    why: str = ""
    next_hop: str = ""
    site: str = ""
    provider: str = ""
    group: str = ""
    pool: str = ""
    tls: str = ""
    hosts: tuple[HostLine, ...] = ()
    sources: tuple[SourceLine, ...] = ()
    problems: tuple[str, ...] = ()


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("explain", help="say how mail to an address would go", description=__doc__)
    parser.add_argument("address", metavar="ADDRESS", help="a recipient, such as user@example.com")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--stream", metavar="STREAM", help="default: the first of the configuration")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain, print, and exit with what would become of the mail."""
    try:
        config = load(args.config)
        stream = args.stream or next(iter(config.streams), "")
        if stream not in config.streams:
            known = ", ".join(config.streams) or "none"
            raise ConfigurationError(f"{args.config}: there is no stream {stream!r}; streams has: {known}")
        explanation = asyncio.run(_explain(config, args.address, stream))
    except (ConfigurationError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    print(json.dumps(asdict(explanation)) if args.json else "\n".join(tell(explanation)))
    return explanation.status


async def _explain(config: Config, address: str, stream: str) -> Explanation:
    resolver = Resolver(config.routing.dns)
    try:
        return await explain(config, resolver, address, stream)
    finally:
        await resolver.close()


async def explain(config: Config, resolver: Resolver, address: str, stream: str) -> Explanation:
    """How mail of a stream to this address would go, with the DNS as the resolver sees it."""
    try:
        check_recipient(address, smtputf8=True)
    except BadAddress as error:
        return Explanation(address, EXIT_UNDELIVERABLE, stream=stream, problems=(f"not a valid address: {error}",))
    domain = domain_of(address)
    router = Router(config)
    hop: Hop | Failure | None = router.fixed(domain)
    if hop is None:
        answer = await resolver.mx(domain)
        hop = router.by_mx(ascii_domain(domain), answer)
    if not isinstance(hop, Hop):
        status = EXIT_UNDELIVERABLE if isinstance(hop, PermanentFailure) else EXIT_TEMPORARY
        return Explanation(address, status, domain, stream, problems=(str(hop.reply),))
    return await _explain_hop(config, resolver, Explanation(address, 0, domain, stream), hop)


async def _explain_hop(config: Config, resolver: Resolver, so_far: Explanation, hop: Hop) -> Explanation:
    hosts = await _hosts(config, resolver, hop)
    usable = [address for line in hosts if not line.problem for address in line.addresses]
    pool = Router(config).choice(so_far.stream).pool
    sources = () if hop.kind is RouteKind.LMTP else _sources(config, pool, hop, so_far.domain)
    problems = [f"{line.host}: {line.problem}" for line in hosts if line.problem]
    status = EXIT_DELIVERABLE
    if hosts and not usable:
        status = EXIT_TEMPORARY
        problems.append("none of the hosts has an address that can be used")
    if sources and not any(source.weight for source in sources):
        status = EXIT_TEMPORARY
        problems.append(f"every source address of the pool {pool} has weight 0")
    other_version = _of_other_ip_version(usable, sources)
    if other_version and len(other_version) == sum(1 for source in sources if source.weight):
        status = EXIT_TEMPORARY
    problems += other_version
    suspended = [source.address for source in sources if source.weight and source.limits.suspend]
    if suspended and len(suspended) == sum(1 for source in sources if source.weight):
        status = EXIT_TEMPORARY
    problems += [f"{address}: mail to {hop.site} is suspended (limits of the site)" for address in suspended]
    required = any(source.limits.tls_required for source in sources)
    provider = SiteTable(config.routing).of(so_far.domain, hop.hosts).provider if hop.hosts else ""
    return Explanation(
        so_far.address,
        status,
        so_far.domain,
        so_far.stream,
        hop.kind.name.lower(),
        hop.why,
        f"{hop.next_hop}:{hop.port}" if hop.port else hop.next_hop,
        hop.site,
        provider,
        hop.group,
        pool,
        _tls_policy(config, hop, required=required),
        tuple(hosts),
        sources,
        tuple(problems),
    )


async def _hosts(config: Config, resolver: Resolver, hop: Hop) -> list[HostLine]:
    """The hosts in the order in which they would be tried; none for a Unix socket."""
    if hop.next_hop.startswith("unix:"):
        return []
    wanted: Sequence[MxHost] = hop.hosts or (MxHost(0, hop.next_hop),)
    answers = await asyncio.gather(*(resolver.addresses(host.host) for host in wanted))
    loopback = config.routing.allow_loopback or hop.kind is not RouteKind.MX
    return [_host_line(host, answer, loopback=loopback) for host, answer in zip(wanted, answers, strict=True)]


def _host_line(host: MxHost, answer: AddressAnswer, *, loopback: bool) -> HostLine:
    if answer.status is not DnsStatus.FOUND:
        return HostLine(host.preference, host.host, (), answer.detail)
    refused = [text for text in answer.addresses if not (loopback or may_receive(ip_address(text)))]
    if len(refused) == len(answer.addresses):
        return HostLine(host.preference, host.host, answer.addresses, "only addresses of this machine itself, not used")
    return HostLine(host.preference, host.host, tuple(text for text in answer.addresses if text not in refused))


def _sources(config: Config, pool: str, hop: Hop, domain: str) -> tuple[SourceLine, ...]:
    return tuple(
        SourceLine(
            source.address,
            source.ehlo,
            source.weight,
            limits_for(config.delivery, source.address, hop.site, domain),
        )
        for source in config.pools[pool].sources
    )


def _of_other_ip_version(addresses: Sequence[str], sources: Sequence[SourceLine]) -> list[str]:
    """Sources that can reach none of the hosts because they are of the other IP version."""
    versions = {ip_address(address).version for address in addresses}
    return [
        f"{source.address}: no host has an IPv{ip_address(source.address).version} address"
        for source in sources
        if versions and source.weight and ip_address(source.address).version not in versions
    ]


def _tls_policy(config: Config, hop: Hop, *, required: bool) -> str:
    if hop.kind is RouteKind.LMTP:
        return "none (LMTP)"
    if required:
        return "required (limits of the site); without STARTTLS the mail waits"
    if config.delivery.tls is OutboundTls.NONE:
        return "none (delivery.tls)"
    return "opportunistic: encrypted where the host offers STARTTLS"


def tell(explanation: Explanation) -> list[str]:
    """The explanation as lines for a person."""
    lines = [f"{explanation.address}: {_VERDICTS[explanation.status]}"]
    group = f"{explanation.group} (topics outbound.{explanation.pool}.{explanation.group}.*)"
    fields = (
        ("goes by", f"{explanation.kind} ({explanation.why})" if explanation.kind else ""),
        ("to", explanation.next_hop if explanation.kind != "mx" else ""),
        ("site", explanation.site),
        ("provider", explanation.provider),
        ("group", group if explanation.group else ""),
        ("stream", explanation.stream),
        ("pool", explanation.pool),
        ("TLS", explanation.tls),
    )
    lines += [f"  {name:<9} {value}" for name, value in fields if value]
    for host in explanation.hosts:
        found = ", ".join(host.addresses) or "no address"
        lines.append(f"  host      {host.preference:>3} {host.host}: {found}")
    total = sum(source.weight for source in explanation.sources)
    for source in explanation.sources:
        share = f"{source.weight / total:.0%} of the mail" if total else "unused"
        lines.append(
            f"  from      {source.address} ({source.ehlo}), weight {source.weight}: {share}; {_limits(source.limits)}"
        )
    lines += [f"  problem   {problem}" for problem in explanation.problems]
    return lines


def _limits(limits: Limits) -> str:
    return (
        f"at most {limits.connections} connections, {limits.messages_per_connection} messages a connection, "
        f"{limits.messages_per_second:g} messages/s, {limits.new_connections_per_minute:g} new connections/min"
    )
