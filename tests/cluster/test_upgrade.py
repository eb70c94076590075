"""`helm upgrade` to other values, and `helm rollback`, while mail is under way: nothing is lost, nothing comes twice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_books import Injector, settle
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import Release, component
from tests.support.kubectl import eventually


@pytest.mark.timeout(1800)
def test_upgrade_and_rollback_under_load(
    release: Release, receivers: Receivers, inject: Callable[..., Injector], folder: Path
) -> None:
    before = copy.deepcopy(release.values)
    revision = release.revision()
    injector = inject(count=100_000, per_second=15, sessions=3)
    try:
        release.values["signing"] = {**before["signing"], "replicas": 2}
        release.values["senders"] = {**before["senders"], "drainSeconds": 15}
        release.values["podAnnotations"] = {"example.com/upgrade": "1"}  # every pod is another one
        release.install(folder)
        release.ready()
        assert len(release.kubectl.ready_pods(component("signing"))) == 2
        eventually("every pod is upgraded", lambda: all(upgraded(pod) for pod in pods_of(release)))
        release.helm("rollback", str(revision), "--wait", "--timeout", "15m")
        release.ready()
        assert len(release.kubectl.ready_pods(component("signing"))) == 1
        eventually("every pod is as before", lambda: not any(upgraded(pod) for pod in pods_of(release)))
    finally:
        release.values = before
        injector.stop()
    balance = settle([injector], receivers, injector.prefix, 300)
    assert balance.lost == (), balance
    assert balance.is_even, balance


def pods_of(release: Release) -> list[dict[str, Any]]:
    """The pods of the services and the senders."""
    services = [
        pod for name in ("ingress", "signing", "routing", "scheduler") for pod in release.kubectl.pods(component(name))
    ]
    return [*services, *release.senders.pods(component("sender"))]


def upgraded(pod: dict[str, Any]) -> bool:
    return "example.com/upgrade" in pod["metadata"]["annotations"]
