"""`postrail explain` against a real DNS server: what it says and its exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.cli import explain as explain_command
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text

ZONES = {
    "plain.test": zone_text(
        "plain.test",
        "@ IN MX 10 mx1\n@ IN MX 20 mx2\nmx1 IN A 192.0.2.10\nmx1 IN AAAA 2001:db8::10\n"
        "own IN MX 5 mail.sender.test.\nlame IN MX 10 nowhere\nbehind IN MX 10 loop\nloop IN A 127.0.0.1\n"
        "held IN MX 10 mx1\nsix IN MX 10 mx6\nmx6 IN AAAA 2001:db8::6\n",
    ),
    "null.test": zone_text("null.test", "@ IN MX 0 .\n"),
    "google.com": zone_text("google.com", "@ IN MX 10 smtp\nsmtp IN A 192.0.2.20\n"),
    "broken.test": BROKEN,
}
Explain = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


@pytest.fixture
def explain(tmp_path: Path, server: DnsServer, capsys: pytest.CaptureFixture[str]) -> Explain:
    sources = [
        {"address": "192.0.2.1", "ehlo": "out1.sender.test", "weight": 300},
        {"address": "192.0.2.2", "ehlo": "out2.sender.test", "weight": 100},
    ]
    config: dict[str, Any] = {
        "hostname": "mail.sender.test",
        "data_directory": "data",
        "pools": {"default": {"sources": sources}, "resting": {"sources": [{**sources[0], "weight": 0}]}},
        "streams": {"transactional": {}, "paused": {"pool": "resting"}},
        "routing": {
            "dns": {"nameservers": [server.nameserver], "timeout_seconds": 1},
            "local_domains": {"local.test": {"host": "unix:/run/store/lmtp"}},
            "smarthosts": {"partner.test": {"host": "192.0.2.30", "port": 2525}},
        },
        "delivery": {
            "domain_limits": {"plain.test": {"connections": 3}},
            "site_limits": {"mx1.plain.test": {"suspend": True}},
        },
    }
    file = tmp_path / "postrail.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    def command(*arguments: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        explain_command.add_parser(parser.add_subparsers())
        status = explain_command.run(parser.parse_args(["explain", "--config", str(file), *arguments]))
        output = capsys.readouterr()
        return status, output.out + output.err

    return command


def test_deliverable_address_is_told_in_full(explain: Explain) -> None:
    status, text = explain("user@plain.test")
    assert status == 0
    for part in (
        "user@plain.test: deliverable",
        "mx (MX)",
        "mx1.plain.test+mx2.plain.test",
        "10 mx1.plain.test: 2001:db8::10, 192.0.2.10",
        "mx2.plain.test does not exist",
        "outbound.default.default.*",
        "192.0.2.1 (out1.sender.test), weight 300: 75% of the mail; at most 3 connections",
        "opportunistic",
    ):
        assert part in text


def test_provider_brings_its_site_group_and_limits(explain: Explain) -> None:
    status, text = explain("user@google.com", "--json")
    told = json.loads(text)
    assert (status, told["status"]) == (0, 0)
    assert (told["site"], told["provider"], told["group"]) == ("gmail", "gmail", "gmail")
    assert told["sources"][0]["limits"]["messages_per_connection"] == 50
    assert told["tls"].startswith("required")


@pytest.mark.parametrize(
    ("address", "kind", "next_hop"),
    [
        ("user@local.test", "lmtp", "unix:/run/store/lmtp"),
        ("user@partner.test", "smarthost", "192.0.2.30:2525"),
    ],
)
def test_configured_hops(explain: Explain, address: str, kind: str, next_hop: str) -> None:
    status, text = explain(address, "--json")
    told = json.loads(text)
    assert (status, told["kind"], told["next_hop"]) == (0, kind, next_hop)


@pytest.mark.parametrize(
    ("address", "status", "reason"),
    [
        ("user@null.test", 1, "556 5.1.10 null.test takes no mail"),
        ("user@absent.plain.test", 1, "550 5.1.2 the domain absent.plain.test does not exist"),
        ("user@own.plain.test", 1, "554 5.4.6"),
        ("no-domain", 1, "not a valid address: the address has no domain"),
        ("a b@plain.test", 1, "not a valid address"),
        ("user@broken.test", 75, "answered SERVFAIL"),
        ("user@lame.plain.test", 75, "none of the hosts has an address"),
        ("user@held.plain.test", 75, "192.0.2.2: mail to mx1.plain.test is suspended (limits of the site)"),
        ("user@behind.plain.test", 75, "only addresses of this machine itself"),
    ],
)
def test_what_is_in_the_way(explain: Explain, address: str, status: int, reason: str) -> None:
    found, text = explain(address)
    assert found == status
    assert reason in text


def test_pool_that_sends_nothing(explain: Explain) -> None:
    status, text = explain("user@plain.test", "--stream", "paused")
    assert status == 75
    assert "every source address of the pool resting has weight 0" in text


def test_source_of_another_ip_version_than_the_hosts(explain: Explain) -> None:
    status, text = explain("user@six.plain.test")
    assert status == 75
    assert "192.0.2.1: no host has an IPv4 address" in text


def test_unknown_stream_and_missing_file(explain: Explain, tmp_path: Path) -> None:
    status, text = explain("user@plain.test", "--stream", "nope")
    assert status == 78
    assert "streams has: transactional, paused" in text
    status, text = explain("user@plain.test", "--config", str(tmp_path / "absent.yaml"))
    assert status == 78
    assert "postrail init" in text
