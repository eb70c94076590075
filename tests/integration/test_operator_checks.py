"""The operator's conditions from the real thing: a DNS server, a sender's metrics over HTTP, a stand-in for the API server."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from postrail.core import dkim_record
from postrail_operator import keys
from postrail_operator.client import Client
from postrail_operator.lookout import Lookout, lookout
from postrail_operator.objects import Manifest
from postrail_operator.reconcile import Reconciler
from postrail_operator.settings import Settings, SettingsError
from tests.support.api_server import ApiServer
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text
from tests.support.kubernetes_objects import (
    BASE,
    HASH,
    PEM,
    TEMPLATE,
    ip_pool,
    sender_pool,
    sending_domain,
    submitter,
)

GOOD, LISTED, NAMELESS, SILENT = "192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"
SECRETS = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "mail"},
        "data": {key: base64.b64encode(value).decode()},
    }
    for name, key, value in (("dkim", "s1.pem", PEM), ("shop", "hash", HASH))
]
OTHER_KEY = dkim_record.PublicKey("ed25519", bytes(32))


def published(domain: str, key: dkim_record.PublicKey | None = None) -> str:
    return dkim_record.zone_line("s1", domain, key or keys.public_key(PEM)) + "\n"


ZONES = {
    "test": zone_text("test", "unused IN A 192.0.2.9\n"),
    "good.test": zone_text(
        "good.test",
        f'@ IN TXT "v=spf1 ip4:192.0.2.0/30 ip4:{SILENT} -all"\n_dmarc IN TXT "v=DMARC1; p=reject"\nout1 IN A {GOOD}\n'
        f"out2 IN A {LISTED}\n" + published("good.test"),
        ttl=1,
        negative_ttl=1,
    ),
    "bare.test": zone_text("bare.test", "unused IN A 192.0.2.9\n", ttl=1, negative_ttl=1),
    "other.test": zone_text(
        "other.test", '@ IN TXT "v=spf1 ip4:203.0.113.1 -all"\n' + published("other.test", OTHER_KEY), ttl=1
    ),
    "broken.test": BROKEN,
    "2.0.192.in-addr.arpa": zone_text(
        "2.0.192.in-addr.arpa", "1 IN PTR out1.good.test.\n2 IN PTR elsewhere.test.\n", ttl=1, negative_ttl=1
    ),
    "100.51.198.in-addr.arpa": BROKEN,
    "bl.test": zone_text(
        "bl.test", '2.2.0.192 IN A 127.0.0.2\n2.2.0.192 IN TXT "spam"\n', ttl=1, negative_ttl=1
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


class Sender:
    """A stand-in for a sender's pod: its metrics."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.verified: set[str] = set()
        self.addresses: list[str] = []

    async def serve(self, _: web.Request) -> web.Response:
        lines = []
        for address in self.addresses:
            for problem in ("unbound", "proxy", "mismatch"):
                value = int(self.problems.get(address) == problem)
                labels = f'pool="fast",address="{address}",problem="{problem}"'
                lines.append(f"postrail_sender_address_problems{{{labels}}} {value}")
            labels = f'pool="fast",address="{address}"'
            lines.append(f"postrail_sender_address_verified{{{labels}}} {int(address in self.verified)}")
        return web.Response(text="\n".join(lines) + "\n")


class World:
    """An operator that looks when a test says so, and its surroundings."""

    def __init__(self, api: ApiServer, reconciler: Reconciler, eyes: Lookout, sender: Sender) -> None:
        self.api = api
        self.sender = sender
        self._reconciler = reconciler
        self.eyes = eyes
        self._looks = 0

    async def look(self) -> None:
        """One look at everything."""
        self._looks += 1
        now = f"2026-11-22T12:{self._looks // 60 % 60:02d}:{self._looks % 60:02d}Z"
        assert await self._reconciler.look(now, float(self._looks)) == 0

    async def until(self, true: Callable[[], Any], seconds: float = 20) -> None:
        """Look again and again until something holds."""
        async with asyncio.timeout(seconds):
            await self.look()
            while not true():
                await asyncio.sleep(0.1)
                await self.look()

    def address(self, address: str, condition: str) -> tuple[str, str]:
        """Status and reason of a condition of an address of the pool `main`."""
        return self._condition(self.entry(address), condition)

    def entry(self, address: str) -> Manifest:
        entries = self.api.of_kind("IPPool")["main"].get("status", {}).get("addresses", ())
        return next((one for one in entries if one["address"] == address), {})

    def of(self, kind: str, name: str, condition: str) -> tuple[str, str]:
        return self._condition(self.api.of_kind(kind)[name].get("status", {}), condition)

    @staticmethod
    def _condition(status: Manifest, condition: str) -> tuple[str, str]:
        return next(
            ((one["status"], one["reason"]) for one in status.get("conditions", ()) if one["type"] == condition),
            ("", ""),
        )


@pytest.fixture
async def world(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("postrail_operator.reports.INTERVAL_SECONDS", 0.1)
    sender, application = Sender(), web.Application()
    application.router.add_get("/metrics", sender.serve)
    base = {
        **BASE,
        "routing": {**BASE["routing"], "dns": {"nameservers": [dns.nameserver], "timeout_seconds": 2, "tries": 1}},
        "checks": {"block_lists": [{"zone": "bl.test"}]},
    }
    settings = Settings("mail", "mail", "postrail", check_seconds=1.0)
    async with ApiServer() as api, TestServer(application) as pod:
        api.put(*SECRETS, _pod(pod.port or 0))
        async with Client(kopf.ConnectionInfo(server=api.url)) as client:
            reconciler = Reconciler(client, settings, base, TEMPLATE, "me", 5)
            eyes = reconciler.lookout = lookout(settings, base, client, reconciler.poke)
            running = asyncio.create_task(eyes.run())
            yield World(api, reconciler, eyes, sender)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def _pod(port: int) -> Manifest:
    labels = {"app.kubernetes.io/instance": "postrail", "app.kubernetes.io/component": "sender"}
    container = {"name": "sender", "ports": [{"name": "health", "containerPort": port}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sender-1", "namespace": "mail", "labels": labels},
        "spec": {"nodeName": "n1", "containers": [container]},
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    }


def pool(*addresses: str, **more: Any) -> Manifest:
    """The pool `main`, whose addresses greet as outN.good.test."""
    sources = [{"address": address, "ehlo": f"out{number}.good.test"} for number, address in enumerate(addresses, 1)]
    return ip_pool("main", spec={"addresses": sources, **more.pop("spec", {})}, **more)


def domain_of(domain: str) -> tuple[Manifest, Manifest]:
    name = domain.partition(".")[0]
    return sending_domain(name, domain), submitter("shop", "s", spec={"domains": [domain]})


async def test_address_and_domain_of_which_all_is_well(world: World) -> None:
    world.sender.addresses, world.sender.verified = [GOOD], {GOOD}
    world.api.put(pool(GOOD), sender_pool("fast", "s", "main"), *domain_of("good.test"))
    kinds = ("Plumbed", "PTRValid", "SPFAuthorized", "SourceVerified")
    await world.until(lambda: {world.address(GOOD, kind) for kind in kinds} == {("True", "Verified")})
    await world.until(lambda: world.address(GOOD, "Listed") == ("False", "NotListed"))
    await world.until(lambda: world.of("SendingDomain", "good", "Verified") == ("True", "Verified"))
    assert world.api.of_kind("SendingDomain")["good"]["status"]["verified"] == "3/3"
    assert world.of("Submitter", "shop", "Ready") == ("True", "Ready")


async def test_each_condition_of_an_address_is_made_to_fail(world: World) -> None:
    world.sender.addresses = [GOOD, LISTED, NAMELESS, SILENT]
    world.sender.problems = {LISTED: "mismatch", NAMELESS: "unbound"}
    world.api.put(
        pool(GOOD, LISTED, NAMELESS, SILENT), sender_pool("fast", "s", "main"), *domain_of("other.test")
    )  # fmt: skip
    expected = {
        (LISTED, "PTRValid"): ("False", "OtherName"),
        (LISTED, "Listed"): ("True", "Listed"),
        (LISTED, "SourceVerified"): ("False", "OtherSource"),
        (NAMELESS, "PTRValid"): ("False", "RecordMissing"),
        (NAMELESS, "Plumbed"): ("False", "NotOnThisMachine"),
        (SILENT, "PTRValid"): ("Unknown", "DNSFailed"),
        (GOOD, "SPFAuthorized"): ("False", "NotAuthorized"),
    }
    await world.until(lambda: {key: world.address(*key) for key in expected} == expected)
    told = {(event["type"], event["reason"]) for event in world.api.events}
    assert {("Warning", "Listed"), ("Warning", "OtherSource"), ("Warning", "NotOnThisMachine")} <= told
    assert {world.entry(one)["state"] for one in (LISTED, NAMELESS)} == {"Active"}, "the default is by hand"


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (
            "bare.test",
            {
                "DKIMPublished": ("False", "RecordMissing"),
                "SPFAuthorized": ("False", "RecordMissing"),
                "DMARCValid": ("False", "RecordMissing"),
                "Verified": ("False", "RecordMissing"),
            },
        ),
        (
            "other.test",
            {
                "DKIMPublished": ("False", "OtherKey"),
                "SPFAuthorized": ("False", "NotAuthorized"),
                "Verified": ("False", "OtherKey"),
            },
        ),
        ("broken.test", {"DKIMPublished": ("Unknown", "DNSFailed"), "Verified": ("Unknown", "DNSFailed")}),
    ],
)
async def test_each_condition_of_a_domain_is_made_to_fail(
    world: World, domain: str, expected: dict[str, tuple[str, str]]
) -> None:
    world.api.put(pool(GOOD), sender_pool("fast", "s", "main"), *domain_of(domain))
    name = domain.partition(".")[0]
    await world.until(lambda: {kind: world.of("SendingDomain", name, kind) for kind in expected} == expected)


async def test_record_that_is_published_at_last_is_seen(world: World, dns: DnsServer) -> None:
    world.api.put(pool(GOOD), sender_pool("fast", "s", "main"), *domain_of("bare.test"))
    await world.until(lambda: world.of("SendingDomain", "bare", "DMARCValid") == ("False", "RecordMissing"))
    repaired = ZONES["bare.test"].replace(" 1 3600 ", " 2 3600 ") + '_dmarc IN TXT "v=DMARC1; p=none"\n'
    dns.change("bare.test", repaired)
    await world.until(lambda: world.of("SendingDomain", "bare", "DMARCValid") == ("True", "Verified"))
    assert ("Normal", "Verified") not in {(event["type"], event["reason"]) for event in world.api.events}


async def test_listed_address_is_quarantined_and_given_back(world: World, dns: DnsServer) -> None:
    world.sender.addresses = [GOOD, LISTED]
    world.api.put(
        pool(GOOD, LISTED, spec={"quarantine": "automatic"}),
        sender_pool("fast", "s", "main"),
        *domain_of("good.test"),
    )
    await world.until(lambda: world.entry(LISTED).get("state") == "Quarantined")
    quarantine = world.entry(LISTED)["quarantine"]
    assert (quarantine["by"], quarantine["cause"]) == ("automation", "Listed")
    assert world.address(LISTED, "Quarantined") == ("True", "ByAutomation")
    await world.look()
    assert weights(world) == {GOOD: 100, LISTED: 0}
    assert world.entry(LISTED)["quarantine"]["since"] == quarantine["since"], "since when, not until when"
    dns.change("bl.test", zone_text("bl.test", "", ttl=1, negative_ttl=1).replace(" 1 3600 ", " 2 3600 "))
    await world.until(lambda: world.entry(LISTED)["state"] == "Active")
    await world.look()
    assert weights(world) == {GOOD: 100, LISTED: 100}
    assert "quarantine" not in world.entry(LISTED)
    told = [event["message"] for event in world.api.events if event["reason"] in {"ByAutomation", "NotQuarantined"}]
    assert [text.partition(":")[0] for text in told] == [LISTED, LISTED]
    dns.change("bl.test", ZONES["bl.test"].replace(" 1 3600 ", " 3 3600 "))


def weights(world: World) -> dict[str, int]:
    """What the services were told of the pool's addresses."""
    text = base64.b64decode(world.api.of_kind("Secret")["postrail-config"]["data"]["postrail.yaml"])
    return {one["address"]: one["weight"] for one in yaml.safe_load(text)["pools"]["fast"]["sources"]}


async def test_replica_that_stands_by_asks_nothing(world: World) -> None:
    world.api.put(pool(GOOD), sender_pool("fast", "s", "main"))
    await world.until(lambda: world.address(GOOD, "PTRValid") == ("True", "Verified"))
    world.eyes.rest()
    assert world.eyes.checker.answers == {}


def test_wrong_name_server_is_told_at_the_start() -> None:
    base = {**BASE, "routing": {"dns": {"nameservers": ["nowhere"]}}}
    with pytest.raises(SettingsError, match=r"routing\.dns or checks cannot be used"):
        lookout(Settings("mail", "mail", "postrail"), base, Client(), lambda: None)
