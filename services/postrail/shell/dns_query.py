"""Asks name servers one question: over UDP, then TCP where the answer is truncated, from server to server until one answers.

Owns the wire side of DNS: sockets, time-outs, tries, EDNS0, CNAME chains. dnspython chooses a random id and port for every
question and drops answers that do not match it. Never caches and never raises for what servers do: every end is a `Found`
with a status. Its neighbour `postrail.shell.dns` holds the cache and the rules of MX.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
from prometheus_client import Counter, Histogram

from postrail.core.dns_answers import DnsStatus
from postrail.core.nameservers import DEFAULT_PORT, Nameserver, parse_nameserver
from postrail.core.routing_config import DnsConfig

# Questions sent to name servers. outcome: found, no_data, nxdomain, servfail, refused, timeout, error (the server could not
# be reached or its answer could not be understood). Alert when servfail + refused + timeout + error exceed a tenth of all
# for 10 minutes: the resolver is down or cannot reach the internet, and mail is being deferred.
QUERIES = Counter("postrail_dns_queries_total", "Questions sent to name servers, by outcome.", ["outcome"])
# Time to a name server's answer or to the time-out, for each question sent. Alert when the 99th percentile exceeds 2 s.
QUERY_SECONDS = Histogram(
    "postrail_dns_query_duration_seconds",
    "Time to a name server's answer.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
)

UDP_PAYLOAD_BYTES = 1232
MAX_CHAIN = 8
MAX_CONCURRENT = 256

_OUTCOMES = {
    outcome: QUERIES.labels(outcome)
    for outcome in ("found", "no_data", "nxdomain", "servfail", "refused", "timeout", "error")
}


@dataclass(frozen=True, slots=True)
class Found:
    """How a question ended.

    Attributes:
        status: never NULL_MX, which is a rule and not an outcome.
        records: the data of the asked type; empty unless FOUND.
        ttl_seconds: the smallest of the answer, its CNAMEs and, where there are no records, the zone's SOA (RFC 2308 §5).
        authenticated: the AD bit.
        detail: for a person.
    """

    status: DnsStatus
    records: tuple[dns.rdata.Rdata, ...] = ()
    ttl_seconds: float = 0.0
    authenticated: bool = False
    detail: str = ""


class _NoAnswer(Exception):
    """This server gave no usable answer; another one may."""


def machine_nameservers() -> tuple[Nameserver, ...]:
    """Those of /etc/resolv.conf; the loopback address where it names none, as resolv.conf(5) says."""
    try:
        found = dns.resolver.Resolver(configure=True).nameservers
    except (dns.resolver.NoResolverConfiguration, OSError):
        found = []
    servers = tuple(Nameserver(str(server), DEFAULT_PORT) for server in found)
    return servers or (Nameserver("127.0.0.1", DEFAULT_PORT),)


class Questioner:
    """Asks the configured name servers."""

    def __init__(self, config: DnsConfig) -> None:
        self.nameservers = tuple(map(parse_nameserver, config.nameservers)) or machine_nameservers()
        self._timeout_seconds = config.timeout_seconds
        self._tries = config.tries
        self._gate = asyncio.Semaphore(MAX_CONCURRENT)
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(self, name: str, kind: dns.rdatatype.RdataType) -> Found:
        """The records of one type at a name, with its CNAMEs followed.

        Args:
            name: in A-labels.
            kind: such as `dns.rdatatype.MX`.
        """
        try:
            current = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            return Found(DnsStatus.NXDOMAIN, ttl_seconds=3600.0, detail=f"{name} is no valid domain name: {error}")
        ttl_seconds, authenticated = float("inf"), True
        for _ in range(MAX_CHAIN):
            answer = await self._ask_in_turn(current, kind)
            if isinstance(answer, str):
                return Found(DnsStatus.FAILED, detail=answer)
            found, next_name = _interpret(answer, name, kind)
            ttl_seconds = min(ttl_seconds, found.ttl_seconds)
            authenticated = authenticated and found.authenticated
            if next_name is None:
                return Found(found.status, found.records, ttl_seconds, authenticated, found.detail)
            current = next_name
        return Found(DnsStatus.FAILED, detail=f"the CNAMEs of {name} do not end")

    async def _ask_in_turn(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage | str:
        """The first usable answer, or what was wrong with each try."""
        problems: list[str] = []
        for attempt in range(max(self._tries, 1)):
            server = self.nameservers[attempt % len(self.nameservers)]
            async with self._gate:
                started = time.monotonic()
                try:
                    return await self._ask_one(server, name, kind)
                except _NoAnswer as problem:
                    if str(problem) not in problems:
                        problems.append(str(problem))
                finally:
                    QUERY_SECONDS.observe(time.monotonic() - started)
        return f"{dns.rdatatype.to_text(kind)} of {name.to_text(omit_final_dot=True)}: {'; '.join(problems)}"

    async def _ask_one(
        self, server: Nameserver, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage:
        query = dns.message.make_query(name, kind, use_edns=0, payload=UDP_PAYLOAD_BYTES)
        query.flags |= dns.flags.AD  # asks for the AD bit without asking for signatures (RFC 6840 §5.7)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query,
                server.address,
                timeout=self._timeout_seconds,
                port=server.port,
                ignore_unexpected=True,
                ignore_errors=True,
                backend=self._backend,
            )
        except (dns.exception.Timeout, TimeoutError):
            _OUTCOMES["timeout"].inc()
            raise _NoAnswer(f"{server} did not answer within {self._timeout_seconds:g} s") from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            _OUTCOMES["error"].inc()
            raise _NoAnswer(f"{server} could not be asked: {str(error) or type(error).__name__}") from error
        return _usable(answer, server)


def _usable(answer: dns.message.Message, server: Nameserver) -> dns.message.QueryMessage:
    """The answer, where it is one; counts it."""
    rcode = answer.rcode()
    if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and isinstance(answer, dns.message.QueryMessage):
        return answer
    outcome = {dns.rcode.SERVFAIL: "servfail", dns.rcode.REFUSED: "refused"}.get(rcode, "error")
    _OUTCOMES[outcome].inc()
    raise _NoAnswer(f"{server} answered {dns.rcode.to_text(rcode)}")


def _interpret(
    answer: dns.message.QueryMessage, name: str, kind: dns.rdatatype.RdataType
) -> tuple[Found, dns.name.Name | None]:
    """What an answer says, and the name to ask for next where it ends with a CNAME that it does not resolve."""
    authenticated = bool(answer.flags & dns.flags.AD)
    try:
        chain = answer.resolve_chaining()
    except dns.exception.DNSException as error:
        _OUTCOMES["error"].inc()
        return Found(DnsStatus.FAILED, detail=f"the answer about {name} makes no sense: {error}"), None
    ttl_seconds = float(chain.minimum_ttl)
    label = dns.rdatatype.to_text(kind)
    if chain.answer is not None:
        _OUTCOMES["found"].inc()
        return Found(DnsStatus.FOUND, tuple(chain.answer), ttl_seconds, authenticated), None
    if answer.rcode() == dns.rcode.NXDOMAIN:
        _OUTCOMES["nxdomain"].inc()
        return Found(DnsStatus.NXDOMAIN, (), ttl_seconds, authenticated, f"{name} does not exist"), None
    _OUTCOMES["no_data"].inc()
    unresolved = bool(chain.cnames) and not any(rrset.rdtype == dns.rdatatype.SOA for rrset in answer.authority)
    found = Found(DnsStatus.NO_DATA, (), ttl_seconds, authenticated, f"{name} has no {label} record")
    return found, chain.canonical_name if unresolved else None
