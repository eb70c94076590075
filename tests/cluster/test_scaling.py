"""More senders and fewer under mail, by hand, by the operator's own loop and by KEDA: nothing is lost and nothing comes twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postrail.core.kind_specs import AutoscalingSpec
from postrail_operator.scaling import query
from tests.support.cluster_books import Injector, settle
from tests.support.cluster_place import EGRESS_IMAGE
from tests.support.cluster_pools import SERVICE, History, Pool
from tests.support.cluster_prometheus import Prometheus, prometheus
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import Release, ours
from tests.support.kubectl import condition, eventually

pytestmark = pytest.mark.timeout(900, func_only=True)

NAME = "scaled"
SPEC = AutoscalingSpec(
    min_replicas=1,
    max_replicas=3,
    target_drain_seconds=5,
    scale_up_stabilisation_seconds=10,
    scale_down_stabilisation_seconds=30,
)
ONE_SENDER = {"autoscaling": None, "replicas": 1}
SLOW_SECONDS = 2.0
"""How long the receivers think, for mail to wait; each sender has few connections then."""
FEW = {"connections": 100, "newConnectionsPerMinute": 2, "messagesPerConnection": 10_000}
"""Connections come slowly, and the limit is far: mail waits, and more senders would help."""
ONE = {"connections": 1, "messagesPerConnection": 10_000}
"""As many connections as the receivers allow: mail waits, and more senders would send nothing more."""


@pytest.fixture(scope="module")
def pool(release: Release, folder: Path) -> Iterator[Pool]:
    """A pool in the pods' network, and the release's proxies for it."""
    if not release.place.egress_image:
        pytest.skip(f"{EGRESS_IMAGE} names no image of the proxy, without which a pool has one sender on one node")
    before = copy.deepcopy(release.values)
    made = Pool(release, NAME, release.place.pool[2:4])
    release.values["egress"] = made.values()
    release.install(folder)
    release.kubectl.apply(*made.objects())
    made.ready()
    yield made
    made.remove()
    release.values = before
    release.install(folder)


@pytest.fixture(scope="module")
def metrics(pool: Pool) -> Iterator[Prometheus]:
    """A Prometheus that reads the pool's senders."""
    place = pool.release.place
    with prometheus(place.server, f"{SERVICE}.{place.namespace}.svc.cluster.local") as made:
        eventually("Prometheus knows the senders", lambda: made.ask('count(up{job="postrail"} == 1)'))
        yield made


def receive(receivers: Receivers, pool: Pool, seconds: float) -> None:
    for address in pool.release.place.receivers:
        receivers.think(address, seconds)


def books(what: str, injectors: list[Injector], receivers: Receivers, history: History) -> None:
    """Nothing is lost and nothing twice; prints the figures."""
    balances = [settle([injector], receivers, injector.prefix, 240) for injector in injectors]
    accepted, delivered = (sum(getattr(one, name) for one in balances) for name in ("accepted", "delivered"))
    lost, twice = sum(len(one.lost) for one in balances), sum(one.duplicates for one in balances)
    print(f"{what}: accepted {accepted}, delivered {delivered}, L={lost}, D={twice}; {history}")
    for balance in balances:
        assert balance.is_even, balance


def test_kubectl_scale_under_mail(pool: Pool, receivers: Receivers, inject: Callable[..., Injector]) -> None:
    history = History(pool)
    history.until(1)
    injector = inject(count=100_000, per_second=20, sessions=2, username=NAME)
    eventually("mail flows", lambda: receivers.arrivals(injector.prefix))
    for replicas in (3, 1):
        before = len(receivers.arrivals(injector.prefix))
        pool.scale(replicas)
        history.until(replicas)
        eventually("mail flows", lambda before=before: len(receivers.arrivals(injector.prefix)) > before + 40)  # type: ignore[misc]
    injector.stop()
    books("kubectl scale 1→3→1", [injector], receivers, history)


def test_senders_beyond_what_is_of_use_are_not_started(release: Release, pool: Pool) -> None:
    release.kubectl("scale", "senderpool", "transactional", "--replicas=4")
    try:
        body = eventually(
            "the status says so",
            lambda: (
                (found := release.kubectl.get("senderpool", "transactional"))
                and condition(found, "Scaled").get("reason") == "Capped"
                and found
            ),
        )
        assert "transactional-others gets 1" in condition(body, "Scaled")["message"], "its addresses are on one node"
        assert body["status"]["replicas"] == 1
    finally:
        release.kubectl("scale", "senderpool", "transactional", "--replicas=1")


@pytest.fixture
def limits(pool: Pool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Sets the limits to all receivers without a Destination of their own."""

    def set_limits(wanted: dict[str, Any]) -> None:
        pool.release.kubectl.apply(ours("Destination", "default", {"limits": wanted}))
        pool.release.settled()

    yield set_limits
    pool.release.kubectl.delete("destination", "default", "--timeout=60s")
    pool.release.settled()


@pytest.fixture
def autoscale(
    pool: Pool, metrics: Prometheus, limits: Callable[[dict[str, Any]], None], folder: Path
) -> Iterator[Callable[..., None]]:
    """Has the pool scaled under these limits, by the operator itself or with KEDA. Afterwards it has one sender."""

    def begin(wanted: dict[str, Any], *, keda: bool = False) -> None:
        little = pool.release.values["operator"]
        pool.release.values["operator"] = {**little, "prometheusUrl": metrics.url, "keda": keda}
        pool.release.install(folder)
        limits(wanted)
        pool.change({"autoscaling": SPEC.model_dump(by_alias=True)})

    yield begin
    pool.change(ONE_SENDER)


def under_load(
    what: str, pool: Pool, metrics: Prometheus, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    """Mail waits: senders come. It has left: they go. All the while other mail flows."""
    history = History(pool)
    history.until(1)
    expression = query(NAME, SPEC)
    steady = inject(count=100_000, per_second=3, sessions=1, username=NAME)
    receive(receivers, pool, SLOW_SECONDS)
    try:
        burst = inject(count=900, per_second=40, sessions=3, username=NAME)
        history.until(3, 300)
        wanted = metrics.ask(expression)
        print(f"{what}: {eligible(metrics)} could be sent, drain {drain(metrics)} s, the query of KEDA says {wanted}")
    finally:
        receive(receivers, pool, 0.0)
    eventually("the mail has left", lambda: eligible(metrics) < 20, 240)
    history.until(1, 300)
    before = len(receivers.arrivals(steady.prefix))
    eventually("mail flows", lambda: len(receivers.arrivals(steady.prefix)) > before + 10)
    steady.stop()
    books(what, [steady, burst], receivers, history)


def eligible(metrics: Prometheus) -> float:
    return metrics.ask(f'sum(postrail_sender_eligible_deliveries{{pool="{NAME}"}})') or 0.0


def drain(metrics: Prometheus) -> float:
    return metrics.ask(f'avg(postrail_sender_drain_seconds{{pool="{NAME}"}})') or 0.0


def test_operator_scales_by_what_waits(
    pool: Pool,
    metrics: Prometheus,
    receivers: Receivers,
    inject: Callable[..., Injector],
    autoscale: Callable[..., None],
) -> None:
    autoscale(FEW)
    under_load("operator 1→3→1", pool, metrics, receivers, inject)


def test_pool_at_its_receivers_limits_is_not_scaled_up(
    pool: Pool,
    metrics: Prometheus,
    receivers: Receivers,
    inject: Callable[..., Injector],
    autoscale: Callable[..., None],
) -> None:
    autoscale(ONE)
    history = History(pool)
    history.until(1)
    receive(receivers, pool, SLOW_SECONDS)
    try:
        burst = inject(count=500, per_second=40, sessions=3, username=NAME)
        eventually(
            "the status says why",
            lambda: condition(pool.body(), "Scaled").get("reason") == "LimitsReached" and drain(metrics) > 10,
            120,
        )
        history.never_above(1, 45)
        expression = query(NAME, SPEC)
        print(f"at the limits: {eligible(metrics)} could be sent, drain {drain(metrics)} s, {pool.body()['status']}")
        assert metrics.ask(expression) == 1, "KEDA is told the same"
    finally:
        receive(receivers, pool, 0.0)
    books("at the receivers' limits", [burst], receivers, history)


def test_keda_scales_by_what_waits(
    pool: Pool,
    metrics: Prometheus,
    receivers: Receivers,
    inject: Callable[..., Injector],
    autoscale: Callable[..., None],
) -> None:
    if pool.release.kubectl.get("customresourcedefinition", "scaledobjects.keda.sh") is None:
        pytest.skip("KEDA is not installed in the cluster")
    autoscale(FEW, keda=True)
    scaled_object = f"{pool.release.values.get('fullnameOverride') or 'postrail'}-{NAME}"
    eventually(
        "KEDA has taken the ScaledObject",
        lambda: condition(pool.release.kubectl.get("scaledobject", scaled_object), "Ready").get("status") == "True",
    )
    under_load("KEDA 1→3→1", pool, metrics, receivers, inject)
    pool.change(ONE_SENDER)
    eventually("the ScaledObject is gone", lambda: pool.release.kubectl.get("scaledobject", scaled_object) is None)
