"""The resolver: mail hosts of domains, addresses of hosts and other records, remembered as long as their TTLs say.

Owns the cache (bounded, least recently used goes first), the joining of equal look-ups that run at the same time, null MX
(RFC 7505) and the implicit MX (RFC 5321 §5.1). Never raises for what the DNS does and never decides what an answer means
for mail: that is `postrail.core.routes`. `postrail.shell.dns_query` asks the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Generic, TypeVar

import dns.rdata
import dns.rdatatype
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT
from prometheus_client import Counter

from postrail.core.address import BadAddress, ascii_domain
from postrail.core.dns_answers import (
    AddressAnswer,
    Asking,
    DnsStatus,
    MxAnswer,
    MxHost,
    Question,
    RecordAnswer,
    RecordKind,
)
from postrail.core.routing_config import DnsConfig
from postrail.shell.dns_query import Found, Questioner

__all__ = ["AddressAnswer", "DnsStatus", "MxAnswer", "MxHost", "Resolver"]

# Look-ups of mail hosts, addresses and other records, by where the answer came from. result: hit (the cache), miss (name servers
# were asked), joined (an equal look-up was already under way). Nothing to alert on; a falling share of hits explains more load
# on the resolver.
LOOKUPS = Counter("postrail_dns_lookups_total", "Look-ups of mail hosts, addresses and other records.", ["result"])

_HIT, _MISS, _JOINED = (LOOKUPS.labels(result) for result in ("hit", "miss", "joined"))

MIN_TTL_SECONDS = 1.0
"""Even an answer with TTL 0 serves the messages that wait for it."""
FAILED_TTL_SECONDS = 10.0
"""How long a failure is remembered (RFC 2308 §7 allows five minutes)."""

A = TypeVar("A")
T = TypeVar("T")
Timed = tuple[A, float]
"""An answer and how many seconds it holds."""


class _Remembered(Generic[A]):
    """One kind of look-up with its cache."""

    def __init__(
        self, look_up: Callable[[str], Awaitable[Timed[A]]], max_entries: int, clock: Callable[[], float]
    ) -> None:
        self._look_up = look_up
        self._max_entries = max_entries
        self._clock = clock
        self._answers: OrderedDict[str, tuple[A, float]] = OrderedDict()
        self._running: dict[str, asyncio.Task[A]] = {}

    def cached(self, name: str) -> A | None:
        entry = self._answers.get(name)
        if entry is None:
            return None
        if entry[1] <= self._clock():
            del self._answers[name]
            return None
        self._answers.move_to_end(name)
        _HIT.inc()
        return entry[0]

    async def get(self, name: str) -> A:
        answer = self.cached(name)
        if answer is not None:
            return answer
        task = self._running.get(name)
        if task is None:
            _MISS.inc()
            task = asyncio.create_task(self._fill(name), name=f"dns {name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))
        else:
            _JOINED.inc()
        return await asyncio.shield(task)

    async def _fill(self, name: str) -> A:
        answer, ttl_seconds = await self._look_up(name)
        self._answers[name] = (answer, self._clock() + max(ttl_seconds, MIN_TTL_SECONDS))
        self._answers.move_to_end(name)
        while len(self._answers) > self._max_entries:
            self._answers.popitem(last=False)
        return answer

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._answers)


class Resolver:
    """Answers about mail hosts and addresses. One for all tasks of a process's event loop.

    Args:
        config: name servers, time-outs, bounds of the cache.
        clock: seconds that only grow, for the TTLs.

    Raises:
        ValueError: a name server of the configuration is no address.
    """

    def __init__(self, config: DnsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._questioner = Questioner(config)
        self._max_ttl_seconds = config.max_ttl_seconds
        self._negative_ttl_seconds = config.negative_ttl_seconds
        self._mx: _Remembered[MxAnswer] = _Remembered(self._look_up_mx, config.cache_entries, clock)
        self._addresses: _Remembered[AddressAnswer] = _Remembered(self._look_up_addresses, config.cache_entries, clock)
        self._records: _Remembered[RecordAnswer] = _Remembered(self._look_up_records, config.cache_entries, clock)

    @property
    def nameservers(self) -> tuple[str, ...]:
        """Whom it asks, as `ADDRESS:PORT`."""
        return tuple(map(str, self._questioner.nameservers))

    async def mx(self, domain: str) -> MxAnswer:
        """The mail hosts of a domain, with the implicit MX applied.

        Args:
            domain: U-labels or A-labels.
        """
        try:
            return await self._mx.get(ascii_domain(domain))
        except BadAddress as error:
            return MxAnswer(DnsStatus.NXDOMAIN, detail=str(error))

    async def addresses(self, host: str) -> AddressAnswer:
        """The IPv4 and IPv6 addresses of a host; an address is its own."""
        try:
            return await self._addresses.get(ascii_domain(host))
        except BadAddress as error:
            return AddressAnswer(DnsStatus.NXDOMAIN, detail=str(error))

    async def records(self, question: Question) -> RecordAnswer:
        """Records of one kind at a name, U-labels or A-labels, as they are in the DNS; CNAMEs are followed."""
        return await self._records.get(f"{question.kind} {question.name.rstrip('.').lower()}")

    async def decide(self, asking: Asking[T]) -> T:
        """Let a decision ask until it is made."""
        try:
            question = next(asking)
            while True:
                question = asking.send(await self.records(question))
        except StopIteration as decided:
            return decided.value  # type: ignore[no-any-return]

    def mx_sync(self, domain: str) -> MxAnswer | None:
        """What is known of the domain (A-labels, lower case) without asking; None: ask."""
        return self._mx.cached(domain)

    def addresses_sync(self, host: str) -> AddressAnswer | None:
        """What is known of the host (A-labels, lower case) without asking; None: ask."""
        return self._addresses.cached(host)

    async def close(self) -> None:
        """End look-ups under way; those who wait for them are cancelled."""
        await self._mx.close()
        await self._addresses.close()
        await self._records.close()

    async def _look_up_mx(self, domain: str) -> Timed[MxAnswer]:
        found = await self._questioner.ask(domain, dns.rdatatype.MX)
        ttl_seconds = self._ttl_seconds(found)
        if found.status is DnsStatus.FOUND:
            return _mx_answer(domain, found), ttl_seconds
        if found.status is not DnsStatus.NO_DATA:
            return MxAnswer(found.status, (), found.authenticated, detail=found.detail), ttl_seconds
        addresses = await self.addresses(domain)
        if addresses.status is DnsStatus.FOUND:
            authenticated = found.authenticated and addresses.authenticated
            return MxAnswer(DnsStatus.FOUND, (MxHost(0, domain),), authenticated, implicit=True), ttl_seconds
        if addresses.status is DnsStatus.FAILED:
            failed = MxAnswer(DnsStatus.FAILED, detail=f"{found.detail}; {addresses.detail}")
            return failed, min(ttl_seconds, FAILED_TTL_SECONDS)
        detail = f"{domain} has neither MX nor address records"
        return MxAnswer(DnsStatus.NO_DATA, (), found.authenticated, detail=detail), ttl_seconds

    async def _look_up_addresses(self, host: str) -> Timed[AddressAnswer]:
        with contextlib.suppress(ValueError):
            return AddressAnswer(DnsStatus.FOUND, (str(ip_address(host)),)), self._max_ttl_seconds
        both = await asyncio.gather(
            self._questioner.ask(host, dns.rdatatype.AAAA), self._questioner.ask(host, dns.rdatatype.A)
        )
        ttl_seconds = min(map(self._ttl_seconds, both))
        authenticated = all(found.authenticated for found in both)
        addresses = tuple(record.to_text() for found in both for record in found.records)
        if addresses:
            return AddressAnswer(DnsStatus.FOUND, addresses, authenticated), ttl_seconds
        detail = next((found.detail for found in both if found.status is DnsStatus.FAILED), "")
        if detail:
            return AddressAnswer(DnsStatus.FAILED, detail=detail), ttl_seconds
        if all(found.status is DnsStatus.NXDOMAIN for found in both):
            return AddressAnswer(DnsStatus.NXDOMAIN, (), authenticated, both[0].detail), ttl_seconds
        return AddressAnswer(DnsStatus.NO_DATA, (), authenticated, f"{host} has no address"), ttl_seconds

    async def _look_up_records(self, key: str) -> Timed[RecordAnswer]:
        kind, _, name = key.partition(" ")
        with contextlib.suppress(BadAddress):  # a name of other characters than a host's is asked for as it is
            name = ascii_domain(name)
        found = await self._questioner.ask(name, dns.rdatatype.from_text(kind))
        values = _values(RecordKind(kind), found.records)
        return RecordAnswer(found.status, values, found.authenticated, found.detail), self._ttl_seconds(found)

    def _ttl_seconds(self, found: Found) -> float:
        if found.status is DnsStatus.FOUND:
            return min(found.ttl_seconds, self._max_ttl_seconds)
        if found.status is DnsStatus.FAILED:
            return min(FAILED_TTL_SECONDS, self._negative_ttl_seconds)
        return min(found.ttl_seconds, self._negative_ttl_seconds)


def _mx_answer(domain: str, found: Found) -> MxAnswer:
    """Sort the hosts; a lone `.` is a null MX (RFC 7505 §3), one among others is ignored."""
    hosts = sorted(
        {
            MxHost(record.preference, record.exchange.to_text(omit_final_dot=True).lower())
            for record in found.records
            if isinstance(record, MX) and len(record.exchange) > 1
        }
    )
    if not hosts:
        return MxAnswer(DnsStatus.NULL_MX, (), found.authenticated, detail=f"{domain} says that it takes no mail")
    return MxAnswer(DnsStatus.FOUND, tuple(hosts), found.authenticated)


def _values(kind: RecordKind, records: Sequence[dns.rdata.Rdata]) -> tuple[str, ...]:
    if kind is RecordKind.MX:
        hosts = sorted((record for record in records if isinstance(record, MX)), key=lambda record: record.preference)
        return tuple(record.exchange.to_text(omit_final_dot=True).lower().removesuffix(".") for record in hosts)
    if kind is RecordKind.TXT:
        return tuple(
            b"".join(record.strings).decode("utf-8", "replace") for record in records if isinstance(record, TXT)
        )
    return tuple(record.to_text().lower().removesuffix(".") for record in records)
