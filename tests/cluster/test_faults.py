"""Pods end in every way while mail is under way and while it waits: the books balance. And objects in use are not deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from postrail.core.annotations import ABANDON
from tests.support.cluster_books import Injector, settle
from tests.support.cluster_killer import Killer, delete_by_force, evict
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import RELEASE, Release, component, ours
from tests.support.kubectl import Kubectl, Manifest, condition, eventually, is_true

pytestmark = pytest.mark.timeout(900, func_only=True)

SERVICES = ("ingress", "signing", "routing", "scheduler", "sender")
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 10.0
"""A receiver's `250` this long before a sender's end, or while that ends, may not have been recorded: such mail comes again."""


@dataclass(slots=True)
class Run:
    """Mail that flows while pods end.

    Attributes:
        ends: when senders were ended (seconds since 1970), which may repeat what they had just sent.
        log: what was done, for people.
    """

    release: Release
    receivers: Receivers
    injector: Injector
    ends: list[float] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def kubectl_of(self, name: str) -> Kubectl:
        return self.release.senders if name == "sender" else self.release.kubectl

    def pod(self, name: str) -> Manifest:
        """The one pod of a component, ready."""
        kubectl = self.kubectl_of(name)
        return eventually(f"a pod of {name} is ready", lambda: kubectl.ready_pods(component(name)), 240)[0]

    def end(self, name: str, how: str, act: Callable[[Kubectl, Manifest], None], *, repeats: bool = False) -> None:
        """End the pod of a component, and wait until another one (or the same one anew) is ready and mail flows."""
        pod, begun = self.pod(name), time.monotonic()
        if repeats:
            self.ends.append(time.time())
        act(self.kubectl_of(name), pod)
        eventually(f"{name} is back after {how}", partial(self._is_back, name, pod), 300)
        took = time.monotonic() - begun
        self.flows()
        self.log.append(f"{name} {how}: back after {took:.0f} s")

    def _is_back(self, name: str, before: Manifest) -> bool:
        return any(life(pod) != life(before) for pod in self.kubectl_of(name).ready_pods(component(name)))

    def flows(self) -> None:
        """Wait until more mail has arrived."""
        before = len(self.receivers.arrivals(self.injector.prefix))
        eventually("mail flows", lambda: len(self.receivers.arrivals(self.injector.prefix)) > before + 20, 240)

    def settle(self, what: str, seconds: float = 240.0) -> None:
        """Stop where mail still flows, wait for everything, and look at the books."""
        if not self.injector.said().done:
            self.injector.stop()
        balance = settle([self.injector], self.receivers, self.injector.prefix, seconds)
        unexplained = self.unexplained()
        print(
            f"{what}: accepted {balance.accepted}, delivered {balance.delivered}, L={len(balance.lost)}, D={balance.duplicates}, "
            f"unexplained {len(unexplained)}; {'; '.join(self.log)}"
        )
        assert not balance.lost, balance
        assert not balance.queued, balance
        assert not balance.altered, balance
        assert balance.bounced == balance.bounced_and_delivered == 0, balance
        assert not unexplained, unexplained

    def unexplained(self) -> list[str]:
        """Second copies that no end of a sender explains."""
        copies: dict[str, list[float]] = {}
        for arrival in self.receivers.arrivals(self.injector.prefix):
            for recipient in arrival.received.recipients:
                copies.setdefault(recipient, []).append(arrival.at)
        return [
            f"{recipient}: {times}, ends: {self.ends}"
            for recipient, times in copies.items()
            for first in sorted(times)[:-1]
            if not any(end - BEFORE_SECONDS <= first <= end + AFTER_SECONDS for end in self.ends)
        ]


def life(pod: Manifest) -> tuple[str, int]:
    """Which life of which pod."""
    return pod["metadata"]["uid"], sum(one["restartCount"] for one in pod["status"]["containerStatuses"])


@pytest.fixture(scope="module")
def killer(release: Release) -> Iterator[Killer]:
    made = Killer(release)
    made.start()
    yield made
    made.remove()


@pytest.fixture
def flow(release: Release, receivers: Receivers, inject: Callable[..., Injector]) -> Run:
    """Mail flows."""
    run = Run(release, receivers, inject(count=100_000, per_second=15, sessions=3))
    run.flows()
    return run


def test_pods_deleted_by_force(flow: Run) -> None:
    for name in SERVICES:
        flow.end(name, "deleted by force", delete_by_force, repeats=name == "sender")
    flow.settle("delete --force")


def test_pods_killed_from_the_node(flow: Run, killer: Killer) -> None:
    for name in SERVICES:
        flow.end(name, "kill -9", lambda _, pod: killer.kill(pod), repeats=name == "sender")
    flow.settle("kill -9")


@pytest.mark.parametrize("how", ["deleted by force", "kill -9"])
def test_broker_ends(release: Release, flow: Run, killer: Killer, how: str) -> None:
    if release.place.volumes is None:
        pytest.skip("the broker has no volume here, so its mail ends with its pod")
    act = delete_by_force if how == "deleted by force" else lambda _, pod: killer.kill(pod)
    flow.end("kafka", how, act)
    flow.settle(f"broker {how}")


def test_operator_ends_while_objects_change(release: Release, flow: Run, killer: Killer) -> None:
    name = f"inbox1.{release.place.zone}"
    destination = ours("Destination", "one", {"domains": [name], "limits": {"connections": 2}})
    try:
        release.kubectl.apply(destination)
        flow.end("operator", "deleted by force", delete_by_force)
        eventually("the Destination is taken", lambda: is_true(release.kubectl.get("destination", "one"), "Accepted"))
        release.kubectl.delete("destination", "one", "--wait=false")
        flow.end("operator", "kill -9", lambda _, pod: killer.kill(pod))
        eventually("the Destination is gone", lambda: release.kubectl.get("destination", "one") is None)
        eventually("and the configuration says so", lambda: name not in configuration(release))
        release.settled()
    finally:
        release.kubectl.delete("destination", "one", "--timeout=60s")
    flow.settle("operator")


def configuration(release: Release) -> str:
    """The file that the operator has written."""
    return release.entries(f"{RELEASE}-config").get("postrail.yaml", "")


def test_node_is_drained_with_mail_queued(
    release: Release, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    """What `kubectl drain` does to every pod of the release, all at once."""
    every = [*SERVICES, "operator", *(["kafka"] if release.place.volumes is not None else [])]
    for address in release.place.receivers:
        receivers.think(address, 20.0)
    run = Run(release, receivers, inject(count=400, per_second=40, sessions=3))
    try:
        said = run.injector.wait(180)
        queued = len(said.accepted) - len(receivers.arrivals(run.injector.prefix))
        assert queued > 100, f"mail waits: {queued}"
        pods = {name: run.pod(name) for name in every}
        run.ends.append(time.time())
        for name, pod in pods.items():
            evict(run.kubectl_of(name), pod)
        run.log.append(f"{len(pods)} pods evicted with {queued} queued")
    finally:
        for address in release.place.receivers:
            receivers.think(address, 0.0)
    for name, pod in pods.items():
        eventually(f"{name} is back", partial(run._is_back, name, pod), 240)
    run.settle("eviction")


def test_every_budget_lets_one_pod_go(release: Release) -> None:
    budgets = [*release.kubectl.every("poddisruptionbudgets"), *release.senders.every("poddisruptionbudgets")]
    allowed = {one["metadata"]["name"]: one["spec"].get("maxUnavailable") for one in budgets}
    assert {name.removeprefix(f"{RELEASE}-") for name in allowed} >= {"ingress", "signing", "routing", "scheduler"}
    assert any("sender-transactional" in name for name in allowed)
    assert set(allowed.values()) == {1}, "a budget that lets nothing go stops every drain"


@pytest.fixture
def extra(release: Release) -> Iterator[Callable[..., None]]:
    """Makes objects that are taken away again."""
    made: list[tuple[str, str]] = []

    def make(*manifests: Manifest) -> None:
        made.extend((one["kind"].lower(), one["metadata"]["name"]) for one in manifests)
        release.kubectl.apply(*manifests)

    yield make
    for kind, name in reversed(made):
        if kind == "senderpool" and release.kubectl.get(kind, name) is not None:
            release.kubectl.patch(kind, name, {"metadata": {"annotations": {ABANDON: "true"}}})
        release.kubectl.delete(kind, name, "--timeout=100s")


def says(release: Release, kind: str, name: str, about: str, status: str, reason: str) -> str:
    """Wait for a condition; its message."""

    def found() -> Any:
        one = condition(release.kubectl.get(kind, name), about)
        return one if (one.get("status"), one.get("reason")) == (status, reason) else None

    message = str(eventually(f"{about} of {kind}/{name} is {status}, {reason}", found, 60)["message"])
    print(f"{kind}/{name} {about}={status} {reason}: {message}")
    return message


def test_deleted_ip_pool_waits_for_its_senders_and_says_so(release: Release, extra: Callable[..., None]) -> None:
    address = release.place.pool[4]
    pool = release.sender_pool("leaving", "leaving", stream="leaving", suspend=True)
    extra(release.ip_pool("leaving", address), pool)
    eventually("the address is leased", lambda: state(release, "leaving", address) == "Active", 60)
    release.kubectl.delete("ippool", "leaving", "--wait=false")
    message = says(release, "ippool", "leaving", "Released", "False", "InUse")
    assert "SenderPools send from its addresses: leaving" in message
    body = release.kubectl.get("ippool", "leaving")
    assert body is not None, "it is held"
    assert body["metadata"]["finalizers"]
    release.kubectl.delete("senderpool", "leaving", "--wait=false")
    message = says(release, "senderpool", "leaving", "Released", "False", "UnknownQueue")
    assert ABANDON in message
    release.kubectl.patch("senderpool", "leaving", {"metadata": {"annotations": {ABANDON: "true"}}})
    for kind in ("senderpool", "ippool"):
        eventually(f"the {kind} is gone", lambda kind=kind: release.kubectl.get(kind, "leaving") is None)  # type: ignore[misc]


def state(release: Release, pool: str, address: str) -> str:
    """What an IPPool's status says of an address."""
    body = release.kubectl.get("ippool", pool) or {}
    found = [one["state"] for one in body.get("status", {}).get("addresses", ()) if one["address"] == address]
    return str(found[0]) if found else ""


def test_second_pool_with_an_address_says_who_has_it(release: Release, extra: Callable[..., None]) -> None:
    address = release.place.pool[0]
    extra(release.ip_pool("rival", address))
    message = says(release, "ippool", "rival", "Accepted", "False", "AddressTaken")
    assert f"the IPPool main has {address}" in message
    assert state(release, "main", address) == "Active", "who had it first keeps it"
