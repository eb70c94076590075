"""The resolver against a real DNS server: what each kind of answer becomes, and how long it holds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import cast

import dns.flags
import dns.message
import dns.rrset
import pytest

from postrail.core.dns_answers import DnsStatus, MxHost
from postrail.core.routing_config import DnsConfig
from postrail.shell.dns import Resolver
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text

MANY_HOSTS = 80
ZONES = {
    "plain.test": zone_text(
        "plain.test",
        "@ IN MX 20 mx2\n@ IN MX 10 MX1\nmx1 IN A 127.0.0.5\nmx1 IN AAAA ::1\nmx2 IN A 127.0.0.6\n"
        "text IN TXT here\nonly-host IN A 127.0.0.7\n"
        "elsewhere IN CNAME target.alias.test.\ninside IN CNAME plain.test.\nround IN CNAME round2\nround2 IN CNAME round\n",
        ttl=300,
        negative_ttl=40,
    ),
    "alias.test": zone_text("alias.test", "target IN MX 5 mx.alias.test.\nmx IN A 127.0.0.8\n"),
    "null.test": zone_text(
        "null.test", "@ IN MX 0 .\n@ IN A 127.0.0.9\nhalf IN MX 0 .\nhalf IN MX 10 mx.plain.test.\n"
    ),
    "xn--exmple-cua.test": zone_text("xn--exmple-cua.test", "@ IN MX 10 mx.plain.test.\n"),
    "large.test": zone_text("large.test", "".join(f"@ IN MX 10 {'h' * 40}{n}\n" for n in range(MANY_HOSTS))),
    "broken.test": BROKEN,
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def resolver(server: DnsServer, clock: Clock) -> AsyncIterator[Resolver]:
    made = Resolver(DnsConfig(nameservers=(server.nameserver,), timeout_seconds=2.0), clock)
    yield made
    await made.close()


async def test_hosts_come_by_preference_in_lower_case(resolver: Resolver) -> None:
    answer = await resolver.mx("Plain.Test")
    assert answer.status is DnsStatus.FOUND
    assert answer.hosts == (MxHost(10, "mx1.plain.test"), MxHost(20, "mx2.plain.test"))
    assert not answer.implicit
    assert not answer.authenticated


async def test_both_address_families_are_found(resolver: Resolver) -> None:
    answer = await resolver.addresses("mx1.plain.test")
    assert answer.status is DnsStatus.FOUND
    assert set(answer.addresses) == {"127.0.0.5", "::1"}


async def test_domain_without_mx_is_its_own_host(resolver: Resolver) -> None:
    answer = await resolver.mx("only-host.plain.test")
    assert (answer.status, answer.hosts) == (DnsStatus.FOUND, (MxHost(0, "only-host.plain.test"),))
    assert answer.implicit


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.test", DnsStatus.NULL_MX),
        ("absent.plain.test", DnsStatus.NXDOMAIN),
        ("text.plain.test", DnsStatus.NO_DATA),
        ("broken.test", DnsStatus.FAILED),  # SERVFAIL
        ("unserved.example", DnsStatus.FAILED),  # REFUSED
        ("round.plain.test", DnsStatus.FAILED),
        ("a..b", DnsStatus.NXDOMAIN),
        ("-ä-.test", DnsStatus.NXDOMAIN),
    ],
)
async def test_what_is_wrong_is_told_apart(resolver: Resolver, domain: str, status: DnsStatus) -> None:
    answer = await resolver.mx(domain)
    assert answer.status is status
    assert answer.hosts == ()
    assert answer.detail


async def test_failures_name_the_server_and_its_answer(resolver: Resolver, server: DnsServer) -> None:
    answer = await resolver.mx("broken.test")
    assert answer.detail == f"MX of broken.test: {server.nameserver} answered SERVFAIL"


async def test_a_dot_among_other_hosts_is_no_null_mx(resolver: Resolver) -> None:
    answer = await resolver.mx("half.null.test")
    assert answer.hosts == (MxHost(10, "mx.plain.test"),)


@pytest.mark.parametrize("domain", ["inside.plain.test", "elsewhere.plain.test"])
async def test_cname_is_followed(resolver: Resolver, domain: str) -> None:
    answer = await resolver.mx(domain)
    assert answer.status is DnsStatus.FOUND
    assert answer.hosts[0].host in {"mx1.plain.test", "mx.alias.test"}


@pytest.mark.parametrize("domain", ["exämple.test", "EXÄMPLE.test", "xn--exmple-cua.test"])
async def test_internationalised_domain_is_asked_in_a_labels(resolver: Resolver, domain: str) -> None:
    assert (await resolver.mx(domain)).hosts == (MxHost(10, "mx.plain.test"),)


async def test_truncated_answer_is_asked_again_over_tcp(resolver: Resolver) -> None:
    assert len((await resolver.mx("large.test")).hosts) == MANY_HOSTS


async def test_answer_holds_for_its_ttl(resolver: Resolver, clock: Clock) -> None:
    answer = await resolver.mx("plain.test")
    clock.now += 299
    assert resolver.mx_sync("plain.test") is answer
    clock.now += 2
    assert resolver.mx_sync("plain.test") is None
    assert await resolver.mx("plain.test") == answer


async def test_absence_holds_as_the_zone_says(resolver: Resolver, clock: Clock) -> None:
    await resolver.mx("absent.plain.test")
    clock.now += 39
    assert resolver.mx_sync("absent.plain.test") is not None
    clock.now += 2
    assert resolver.mx_sync("absent.plain.test") is None


async def test_failure_is_forgotten_soon(resolver: Resolver, clock: Clock) -> None:
    await resolver.mx("broken.test")
    assert resolver.mx_sync("broken.test") is not None
    clock.now += 11
    assert resolver.mx_sync("broken.test") is None


async def test_configured_bounds_shorten_ttls(server: DnsServer, clock: Clock) -> None:
    config = DnsConfig(nameservers=(server.nameserver,), max_ttl_seconds=20, negative_ttl_seconds=10)
    resolver = Resolver(config, clock)
    await resolver.mx("plain.test")
    await resolver.mx("absent.plain.test")
    clock.now += 11
    assert resolver.mx_sync("plain.test") is not None
    assert resolver.mx_sync("absent.plain.test") is None
    clock.now += 10
    assert resolver.mx_sync("plain.test") is None


async def test_least_recently_used_answer_leaves_a_full_cache(server: DnsServer, clock: Clock) -> None:
    resolver = Resolver(DnsConfig(nameservers=(server.nameserver,), cache_entries=2), clock)
    await resolver.mx("plain.test")
    await resolver.mx("null.test")
    assert resolver.mx_sync("plain.test") is not None
    await resolver.mx("large.test")
    assert resolver.mx_sync("null.test") is None
    assert resolver.mx_sync("plain.test") is not None


class Answering(asyncio.DatagramProtocol):
    """A name server of the tests' own: counts questions and answers each with what `reply` makes of it."""

    def __init__(self) -> None:
        self.questions = 0
        self.flags = 0
        self.wrong_question_first = False
        self.delay_seconds = 0.05

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.questions += 1
        query = dns.message.from_wire(data)
        if self.wrong_question_first:
            forged = dns.message.make_response(dns.message.make_query("forged.test", "MX", id=query.id))
            forged.answer.append(dns.rrset.from_text("forged.test.", 60, "IN", "MX", "10 forged.test."))
            self.transport.sendto(forged.to_wire(), addr)
        response = dns.message.make_response(query)
        response.flags |= self.flags
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "MX", "10 mx.test."))
        asyncio.get_running_loop().call_later(self.delay_seconds, self.transport.sendto, response.to_wire(), addr)


@pytest.fixture
async def answering() -> AsyncIterator[tuple[Answering, str]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    yield protocol, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    transport.close()


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.socket(type=socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


async def test_equal_questions_at_the_same_time_are_asked_once(answering: tuple[Answering, str]) -> None:
    server, address = answering
    resolver = Resolver(DnsConfig(nameservers=(address,)))
    answers = await asyncio.gather(*(resolver.mx("busy.test") for _ in range(50)))
    assert {answer.hosts for answer in answers} == {(MxHost(10, "mx.test"),)}
    assert server.questions == 1


async def test_one_impatient_asker_does_not_end_the_look_up_of_others(answering: tuple[Answering, str]) -> None:
    server, address = answering
    resolver = Resolver(DnsConfig(nameservers=(address,)))
    first = asyncio.create_task(resolver.mx("busy.test"))
    second = asyncio.create_task(resolver.mx("busy.test"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).status is DnsStatus.FOUND
    assert server.questions == 1


async def test_answer_to_another_question_is_ignored(answering: tuple[Answering, str]) -> None:
    server, address = answering
    server.wrong_question_first = True
    assert (await Resolver(DnsConfig(nameservers=(address,))).mx("asked.test")).hosts == (MxHost(10, "mx.test"),)


async def test_a_validating_resolver_is_noticed(answering: tuple[Answering, str]) -> None:
    server, address = answering
    server.flags = dns.flags.AD
    assert (await Resolver(DnsConfig(nameservers=(address,))).mx("signed.test")).authenticated


async def test_silent_server_is_passed_over(answering: tuple[Answering, str], silent: str) -> None:
    _, address = answering
    resolver = Resolver(DnsConfig(nameservers=(silent, address), timeout_seconds=0.3, tries=2))
    assert (await resolver.mx("patient.test")).status is DnsStatus.FOUND


async def test_no_server_answers(silent: str) -> None:
    resolver = Resolver(DnsConfig(nameservers=(silent,), timeout_seconds=0.1, tries=2))
    answer = await resolver.mx("lost.test")
    assert answer.status is DnsStatus.FAILED
    assert answer.detail == f"MX of lost.test: {silent} did not answer within 0.1 s"
