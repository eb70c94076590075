"""From which address mail leaves: through proxies and from the node itself, or not at all; and when an address is free."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_books import Injector, settle
from tests.support.cluster_place import EGRESS_IMAGE
from tests.support.cluster_receivers import Arrival, Receivers
from tests.support.cluster_release import USER, Release, component, ours
from tests.support.kubectl import Manifest, condition, eventually

pytestmark = pytest.mark.timeout(1200)
POOL, STREAM, SUBMITTER = "proxied", "news", "newsroom"
FIRST_PORT = 21081
RATE_PER_SECOND = 4.0
TOLD_SECONDS = 240.0
"""Until a status tells what is so, on a busy machine."""


@pytest.fixture(scope="module")
def proxied(release: Release, folder: Path) -> Iterator[tuple[str, ...]]:
    """The addresses of a pool behind the chart's proxies, ready, with a SenderPool and a Submitter of its own."""
    if not release.place.egress_image:
        pytest.skip(f"{EGRESS_IMAGE} names no image of the proxy")
    addresses = release.place.pool[2:4]
    before = copy.deepcopy(release.values)
    release.values["egress"] = egress_values(release, addresses)
    release.install(folder)
    password = {"name": "password", "key": "hash"}
    release.kubectl.apply(
        proxied_pool(release, POOL, *addresses),
        release.sender_pool(POOL, POOL, stream=STREAM),
        ours(
            "Submitter",
            SUBMITTER,
            {"domains": [release.domain], "stream": STREAM, "username": SUBMITTER, "passwordSecretRef": password},
        ),
    )
    for kind in ("ippool", "senderpool"):
        eventually(f"{kind} is ready", lambda kind=kind: holds(release.kubectl.get(kind, POOL), "Ready"), TOLD_SECONDS)  # type: ignore[misc]
    release.settled()
    yield addresses
    release.kubectl.patch("senderpool", POOL, {"metadata": {"annotations": {"postrail.io/abandon-queue": "true"}}})
    for kind, name in (("submitter", SUBMITTER), ("senderpool", POOL), ("ippool", POOL)):
        release.kubectl.delete(kind, name, "--timeout=100s")
    release.values = before
    release.install(folder)


def egress_values(release: Release, addresses: tuple[str, ...]) -> dict[str, Any]:
    """The chart's proxies, for the pods' network."""
    pod = release.kubectl.ready_pods(component("routing"))[0]
    return {
        "enabled": True,
        "image": release.place.egress_image,
        "nodeSelector": {release.node_label: "true"},
        "addresses": [{"address": address, "port": port} for port, address in enumerate(addresses, FIRST_PORT)],
        "clients": [str(ip_network(f"{pod['status']['podIP']}/16", strict=False))],
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
    }


def node_of(release: Release) -> Manifest:
    node = release.kubectl.get("node", release.node())
    assert node is not None
    return node


def proxied_pool(release: Release, name: str, *addresses: str) -> Manifest:
    """An IPPool behind the chart's proxies."""
    (host,) = [one["address"] for one in node_of(release)["status"]["addresses"] if one["type"] == "InternalIP"][:1]
    ports = {address: port for port, address in enumerate(release.place.pool[2:4], FIRST_PORT)}
    every = [
        {
            "address": address,
            "ehlo": release.zones.pointers[address],
            "proxy": f"socks5://{host}:{ports.get(address, FIRST_PORT)}",
        }
        for address in addresses
    ]
    return ours("IPPool", name, {"addresses": every, "binding": {"mode": "socks5"}})


def holds(body: Manifest | None, kind: str) -> bool:
    return condition(body or {}, kind).get("status") == "True"


def address_of(release: Release, pool: str, address: str) -> Manifest:
    """What the status of an IPPool says of an address; empty where it says nothing."""
    body = release.kubectl.get("ippool", pool) or {}
    found: list[Manifest] = body.get("status", {}).get("addresses", [])
    return next((one for one in found if one["address"] == address), {})


def says(release: Release, pool: str, address: str, kind: str, status: str) -> Callable[[], bool]:
    """Whether a condition of an address has this status."""

    def probe() -> bool:
        found = address_of(release, pool, address).get("conditions", ())
        return any((one["type"], one["status"]) == (kind, status) for one in found)

    return probe


def sources(arrivals: list[Arrival]) -> set[str]:
    return {arrival.received.client_address for arrival in arrivals}


@contextlib.contextmanager
def taken_from_the_node(address: str) -> Iterator[None]:
    """The node does not have the address meanwhile. Needs to be where the node's interfaces are."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("taking an address from the node needs root and iproute2")
    shown = subprocess.run(["ip", "-o", "address", "show", "to", address], capture_output=True, text=True, check=True)
    if not shown.stdout:
        pytest.skip(f"{address} is not in this network name space, so it cannot be taken from the node here")
    interface, prefix = shown.stdout.split()[1], shown.stdout.split()[3]
    subprocess.run(["ip", "address", "del", prefix, "dev", interface], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "replace", prefix, "dev", interface], check=True)


def test_mail_leaves_through_the_proxies_from_exactly_their_addresses(
    release: Release, receivers: Receivers, proxied: tuple[str, ...], inject: Callable[..., Injector]
) -> None:
    injector = inject(count=60, username=SUBMITTER)
    balance = settle([injector], receivers, injector.prefix)
    assert balance.is_even, balance
    arrivals = receivers.arrivals(injector.prefix)
    assert sources(arrivals) == set(proxied)
    names = {(one.received.client_address, one.received.helo) for one in arrivals}
    assert names == {(address, release.zones.pointers[address]) for address in proxied}
    for address in proxied:
        for kind in ("Plumbed", "SourceVerified"):
            eventually(f"{address} is {kind}", says(release, POOL, address, kind, "True"), TOLD_SECONDS)


@pytest.mark.parametrize(
    ("pool", "number", "user"), [("main", 1, USER), (POOL, 3, SUBMITTER)], ids=["direct", "socks5"]
)
def test_mail_waits_for_an_address_that_the_node_lost(
    release: Release,
    receivers: Receivers,
    proxied: tuple[str, ...],
    inject: Callable[..., Injector],
    pool: str,
    number: int,
    user: str,
) -> None:
    lost, other = release.place.pool[number], release.place.pool[number - 1]
    with taken_from_the_node(lost):
        eventually("the status says that it is gone", says(release, pool, lost, "Plumbed", "False"), TOLD_SECONDS)
        injector = inject(count=40, username=user)
        said = injector.wait()
        assert len(said.accepted) == 40, "mail is taken meanwhile"
        eventually("what has the other address arrives", lambda: len(receivers.arrivals(injector.prefix)) > 5, 90)
        eventually("no more arrives", quiet(receivers, injector.prefix), 60, every=5)
        arrivals = receivers.arrivals(injector.prefix)
        assert sources(arrivals) == {other}, "mail never leaves from another address"
        assert len(arrivals) < 40, "what has the lost address waits"
    eventually("the status says that it is back", says(release, pool, lost, "Plumbed", "True"), TOLD_SECONDS)
    balance = settle([injector], receivers, injector.prefix, 300)
    assert balance.is_even, balance
    assert balance.delivered == 40
    assert sources(receivers.arrivals(injector.prefix)) == {lost, other}


def quiet(receivers: Receivers, prefix: str) -> Callable[[], bool]:
    """Whether as much has arrived as at the call before."""
    seen = [-1]

    def probe() -> bool:
        before, seen[0] = seen[0], len(receivers.arrivals(prefix))
        return before == seen[0]

    return probe


def test_an_address_is_free_when_its_mail_has_left(
    release: Release, receivers: Receivers, proxied: tuple[str, ...], inject: Callable[..., Injector]
) -> None:
    kept, given_up = proxied
    try:
        for address in release.place.receivers:
            receivers.think(address, 4.0)
        injector = inject(count=40, username=SUBMITTER)
        eventually("mail is under way", lambda: len(receivers.arrivals(injector.prefix)) > 0, 90)
        release.kubectl.apply(proxied_pool(release, POOL, kept), proxied_pool(release, "successor", given_up))
        eventually("it drains", lambda: address_of(release, POOL, given_up).get("state") == "Draining", TOLD_SECONDS)
        body = release.kubectl.get("ippool", "successor")
        eventually("the other pool is told", lambda: told_of_owner(release), TOLD_SECONDS)
        assert body is not None
        assert address_of(release, "successor", given_up).get("state", "Taken") == "Taken", (
            "no address is with two pools"
        )
        for address in release.place.receivers:
            receivers.think(address, 0.0)
        balance = settle([injector], receivers, injector.prefix, 300)
        assert balance.is_even, balance
        assert sources(receivers.arrivals(injector.prefix)) <= set(proxied)
        eventually("it is free", lambda: not address_of(release, POOL, given_up), TOLD_SECONDS)
        eventually(
            "the other pool has it", lambda: address_of(release, "successor", given_up)["state"] == "Idle", TOLD_SECONDS
        )
    finally:
        for address in release.place.receivers:
            receivers.think(address, 0.0)
        release.kubectl.delete("ippool", "successor", "--timeout=60s")
        release.kubectl.apply(proxied_pool(release, POOL, *proxied))
    eventually("both are back", lambda: both_active(release, proxied), TOLD_SECONDS)
    release.settled()


def both_active(release: Release, addresses: tuple[str, ...]) -> bool:
    return all(address_of(release, POOL, address).get("state") == "Active" for address in addresses)


def told_of_owner(release: Release) -> bool:
    found = condition(release.kubectl.get("ippool", "successor") or {}, "Accepted")
    return found.get("reason") == "AddressTaken" and POOL in found.get("message", "")


def test_limits_of_each_address_hold_with_two_senders(
    release: Release, receivers: Receivers, proxied: tuple[str, ...], inject: Callable[..., Injector]
) -> None:
    slow = f"inbox1.{release.place.zone}"
    limits = {"messagesPerSecond": RATE_PER_SECOND, "connections": 2}
    try:
        release.kubectl.apply(ours("Destination", "slow", {"domains": [slow], "limits": limits}))
        release.kubectl.patch("senderpool", POOL, {"spec": {"replicas": 2}})
        eventually(
            "the limits are known", lambda: holds(release.kubectl.get("destination", "slow"), "Accepted"), TOLD_SECONDS
        )
        eventually("two senders", lambda: ready_senders(release) == 2, TOLD_SECONDS)
        release.settled()
        injector = inject(count=120, username=SUBMITTER, recipients=[slow])
        balance = settle([injector], receivers, injector.prefix, 300)
        assert balance.is_even, balance
    finally:
        release.kubectl.delete("destination", "slow", "--timeout=60s")
        release.kubectl.patch("senderpool", POOL, {"spec": {"replicas": 1}})
    by_address = defaultdict(list)
    for arrival in receivers.arrivals(injector.prefix):
        by_address[arrival.received.client_address].append(arrival.at)
    assert set(by_address) == set(proxied)
    for address, times in by_address.items():
        assert most_within(sorted(times), 5.0) <= 5.0 * RATE_PER_SECOND + 2, f"{address} sent faster than it may"


def ready_senders(release: Release) -> int:
    body = release.kubectl.get("senderpool", POOL) or {}
    return int(body.get("status", {}).get("readyReplicas", 0))


def most_within(times: list[float], seconds: float) -> int:
    """The most that came within any stretch of time of this length."""
    return max(sum(start <= at < start + seconds for at in times) for start in times)
