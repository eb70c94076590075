"""The checks of domains and addresses against a real DNS server: what stands there, what is missing, and silence."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from postrail.cli import dkim as command
from postrail.core import dkim_record
from postrail.core.checks import Reason, Verdict
from postrail.core.checks_config import BlockListConfig
from postrail.core.dns_answers import DnsStatus, Question, RecordKind
from postrail.core.routing_config import DnsConfig
from postrail.shell.checks import address as address_checks
from postrail.shell.checks import domain as domain_checks
from postrail.shell.dns import Resolver
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text

KEY = dkim_record.PublicKey("rsa", bytes(range(256)) + bytes(38))
EHLO = "out1.sender.test"
V6 = "2001:db8::1"
V6_ZONE = "8.b.d.0.1.0.0.2.ip6.arpa"

SENDER = zone_text(
    "sender.test",
    '@ IN TXT "v=spf1 include:_spf.sender.test mx:example.test -all"\n@ IN TXT "unrelated"\n'
    '_spf IN TXT "v=spf1 ip4:192.0.2.0/30 a:out1.sender.test " "exists:%{ir}.ok.sender.test ~all"\n'
    "5.2.0.192.ok IN A 127.0.0.2\n"
    'bad IN TXT "v=spf1 ip4:192.0.2 -all"\nsilent IN TXT "v=spf1 a:x.broken.test -all"\n'
    '_dmarc IN TXT "v=DMARC1; p=quarantine; rua=mailto:d@sender.test"\n'
    f"{dkim_record.zone_line('s1', 'sender.test', KEY)}\n"
    f"out1 IN A 192.0.2.1\nout1 IN AAAA {V6}\nout3 IN A 192.0.2.99\n",
)
ZONES = {
    "test": zone_text("test", "unused IN A 192.0.2.1\n"),
    "sender.test": SENDER,
    "example.test": zone_text("example.test", "@ IN MX 10 mx\nmx IN A 192.0.2.77\n"),
    "2.0.192.in-addr.arpa": zone_text(
        "2.0.192.in-addr.arpa", "1 IN PTR OUT1.sender.test.\n2 IN PTR other.test.\n3 IN PTR out3.sender.test.\n"
    ),
    V6_ZONE: zone_text(V6_ZONE, f"{ip_address(V6).reverse_pointer}. IN PTR {EHLO}.\n"),
    "bl.test": zone_text(
        "bl.test",
        '2.2.0.192 IN A 127.0.0.4\n2.2.0.192 IN TXT "https://bl.test/?192.0.2.2"\n'
        f"{ip_address(V6).reverse_pointer.removesuffix('.ip6.arpa')} IN A 127.0.0.2\n",
    ),
    "public.test": zone_text("public.test", "* IN A 127.255.255.254\n"),
    "parked.test": zone_text("parked.test", "* IN A 203.0.113.80\n"),
    "broken.test": BROKEN,
}


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


@pytest.fixture
async def resolver(server: DnsServer) -> AsyncIterator[Resolver]:
    made = Resolver(DnsConfig(nameservers=(server.nameserver,), timeout_seconds=2.0, tries=1))
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("question", "values"),
    [
        (Question(RecordKind.TXT, "_dmarc.Sender.Test."), ("v=DMARC1; p=quarantine; rua=mailto:d@sender.test",)),
        (Question(RecordKind.PTR, "1.2.0.192.in-addr.arpa"), (EHLO,)),
        (Question(RecordKind.A, EHLO), ("192.0.2.1",)),
        (Question(RecordKind.AAAA, EHLO), (V6,)),
        (Question(RecordKind.MX, "example.test"), ("mx.example.test",)),
    ],
)
async def test_records_as_they_are(resolver: Resolver, question: Question, values: tuple[str, ...]) -> None:
    answer = await resolver.records(question)
    assert (answer.status, answer.values) == (DnsStatus.FOUND, values)


async def test_records_hold_for_their_ttl(server: DnsServer) -> None:
    now = 1000.0
    resolver = Resolver(DnsConfig(nameservers=(server.nameserver,)), lambda: now)
    question = Question(RecordKind.TXT, "_dmarc.sender.test")
    first = await resolver.records(question)
    now += 299
    assert await resolver.records(question) is first
    now += 2
    again = await resolver.records(question)
    assert again is not first
    assert again == first
    await resolver.close()


async def test_dkim(resolver: Resolver) -> None:
    assert (await domain_checks.dkim(resolver, "Sender.Test", "s1", KEY)).verdict is Verdict.PASSED
    other = dkim_record.PublicKey("rsa", bytes(300))
    assert (await domain_checks.dkim(resolver, "sender.test", "s1", other)).reason is Reason.OTHER_KEY
    assert (await domain_checks.dkim(resolver, "sender.test", "s2", KEY)).reason is Reason.RECORD_MISSING
    assert (await domain_checks.dkim(resolver, "broken.test", "s1", KEY)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("domain", "address", "verdict", "reason"),
    [
        ("sender.test", "192.0.2.1", Verdict.PASSED, Reason.VERIFIED),  # ip4
        ("sender.test", "192.0.2.5", Verdict.PASSED, Reason.VERIFIED),  # exists with macros
        ("sender.test", "192.0.2.77", Verdict.PASSED, Reason.VERIFIED),  # mx
        ("sender.test", "192.0.2.6", Verdict.FAILED, Reason.NOT_AUTHORIZED),
        ("sender.test", V6, Verdict.PASSED, Reason.VERIFIED),  # a, in a second string of the record
        ("sender.test", "2001:db8::2", Verdict.FAILED, Reason.NOT_AUTHORIZED),
        ("bad.sender.test", "192.0.2.1", Verdict.FAILED, Reason.RECORD_INVALID),
        ("out1.sender.test", "192.0.2.1", Verdict.FAILED, Reason.RECORD_MISSING),
        ("absent.sender.test", "192.0.2.1", Verdict.FAILED, Reason.RECORD_MISSING),
        ("silent.sender.test", "192.0.2.1", Verdict.UNKNOWN, Reason.DNS_FAILED),
        ("broken.test", "192.0.2.1", Verdict.UNKNOWN, Reason.DNS_FAILED),
    ],
)
async def test_spf(resolver: Resolver, domain: str, address: str, verdict: Verdict, reason: Reason) -> None:
    result = await domain_checks.spf(resolver, domain, address, EHLO)
    assert (result.verdict, result.reason) == (verdict, reason), result


async def test_dmarc(resolver: Resolver) -> None:
    result = await domain_checks.dmarc(resolver, "news.sender.test", "bounce.sender.test", ["sender.test"])
    assert result.verdict is Verdict.PASSED
    assert "policy quarantine from _dmarc.sender.test" in result.found
    missing = await domain_checks.dmarc(resolver, "example.test", "example.test", [])
    assert missing.reason is Reason.RECORD_MISSING
    assert (await domain_checks.dmarc(resolver, "broken.test", "", [])).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("address", "ehlo", "verdict", "reason"),
    [
        ("192.0.2.1", "OUT1.sender.test", Verdict.PASSED, Reason.VERIFIED),
        (V6, EHLO, Verdict.PASSED, Reason.VERIFIED),
        ("192.0.2.2", EHLO, Verdict.FAILED, Reason.OTHER_NAME),
        ("192.0.2.3", "out3.sender.test", Verdict.FAILED, Reason.NOT_FORWARD_CONFIRMED),
        ("192.0.2.4", EHLO, Verdict.FAILED, Reason.RECORD_MISSING),
        ("198.51.100.1", EHLO, Verdict.UNKNOWN, Reason.DNS_FAILED),  # REFUSED
    ],
)
async def test_ptr(resolver: Resolver, address: str, ehlo: str, verdict: Verdict, reason: Reason) -> None:
    result = await address_checks.ptr(resolver, address, ehlo)
    assert (result.verdict, result.reason) == (verdict, reason), result


@pytest.mark.parametrize(
    ("address", "zones", "verdict", "reason"),
    [
        ("192.0.2.1", ["bl.test"], Verdict.PASSED, Reason.VERIFIED),
        ("192.0.2.2", ["bl.test", "broken.test"], Verdict.FAILED, Reason.LISTED),
        (V6, ["bl.test"], Verdict.FAILED, Reason.LISTED),
        ("2001:db8::2", ["bl.test"], Verdict.PASSED, Reason.VERIFIED),
        ("192.0.2.1", ["bl.test", "public.test"], Verdict.UNKNOWN, Reason.QUERY_REFUSED),
        ("192.0.2.1", ["parked.test"], Verdict.UNKNOWN, Reason.UNEXPECTED_ANSWER),
        ("192.0.2.1", ["bl.test", "broken.test"], Verdict.UNKNOWN, Reason.DNS_FAILED),
    ],
)
async def test_block_lists(
    resolver: Resolver, address: str, zones: list[str], verdict: Verdict, reason: Reason
) -> None:
    result = await address_checks.listed(resolver, address, [BlockListConfig(zone=zone) for zone in zones])
    assert (result.verdict, result.reason) == (verdict, reason), result
    if reason is Reason.LISTED and address == "192.0.2.2":
        assert result.found == "bl.test: 127.0.0.4 https://bl.test/?192.0.2.2"


async def test_a_server_that_is_gone_fails_nothing() -> None:
    resolver = Resolver(DnsConfig(nameservers=("127.0.0.1:1",), timeout_seconds=0.2, tries=1))
    results = [
        await domain_checks.dkim(resolver, "sender.test", "s1", KEY),
        await domain_checks.spf(resolver, "sender.test", "192.0.2.1", EHLO),
        await domain_checks.dmarc(resolver, "sender.test", "", ["sender.test"]),
        await address_checks.ptr(resolver, "192.0.2.1", EHLO),
        await address_checks.listed(resolver, "192.0.2.1", [BlockListConfig(zone="bl.test")]),
    ]
    assert {(result.verdict, result.reason) for result in results} == {(Verdict.UNKNOWN, Reason.DNS_FAILED)}
    await resolver.close()


@pytest.mark.parametrize(("address", "verdict"), [("127.0.44.5", Verdict.PASSED), ("192.0.2.1", Verdict.FAILED)])
def test_bound(address: str, verdict: Verdict) -> None:
    assert address_checks.bound(address).verdict is verdict


def test_the_command_compares_keys_with_the_dns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        args = parser.parse_args(["dkim", *arguments])
        return int(args.run(args))

    monkeypatch.chdir(tmp_path)
    assert run("generate", "keys.test", "--algorithm", "ed25519", "--selector", "s1") == 0
    printed = capsys.readouterr().out
    record = next(line for line in printed.splitlines() if line.startswith("v=DKIM1"))
    zones = {"keys.test": zone_text("keys.test", f's1._domainkey IN TXT "{record}"\n')}
    with serving(zones) as server:
        file = tmp_path / "postrail.yaml"
        key_file = tmp_path / "keys.test.s1.pem"
        text = (
            f"hostname: mail.keys.test\ndata_directory: {tmp_path}\n"
            "pools: {default: {sources: [{address: 127.0.0.1, ehlo: mail.keys.test}]}}\n"
            f"routing: {{dns: {{nameservers: ['{server.nameserver}']}}}}\n"
            f"signing: {{domains: {{keys.test: {{keys: [{{selector: SELECTOR, key_file: {key_file}}}]}}}}}}\n"
        )
        file.write_text(text.replace("SELECTOR", "s1"), encoding="utf-8")
        assert run("check", "keys.test", "--config", str(file)) == 0
        assert f"s1._domainkey.keys.test: matches {key_file}" in capsys.readouterr().out
        file.write_text(text.replace("SELECTOR", "s2"), encoding="utf-8")
        assert run("check", "keys.test", "--config", str(file)) == 1
        told = capsys.readouterr().err
        assert "s2._domainkey.keys.test does not exist" in told
        assert f"publish this TXT record: {record}" in told
