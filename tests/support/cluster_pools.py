"""A SenderPool that can have several senders on one node: its pods are in the pods' network, its addresses behind proxies.

Owns its objects, the headless Service by which Prometheus finds its senders, and what the release's values must say for it.
Neighbours: `cluster_release` (the release and its direct pool), `cluster_prometheus`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from postrail.core.annotations import ABANDON
from tests.support.cluster_release import RELEASE, Release, component, ours, resource
from tests.support.kubectl import Manifest, eventually, is_true

FIRST_PORT = 21281
SERVICE = "sender-metrics"


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool `name`: IPPool, SenderPool, stream and Submitter have that name."""

    release: Release
    name: str
    addresses: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        """The values `egress`: proxies on the node of the addresses, for pods, whose network is taken to be a /16."""
        return {
            "enabled": True,
            "image": self.release.place.egress_image,
            "nodeSelector": {self.release.node_label: "true"},
            "addresses": [
                {"address": address, "port": port} for port, address in enumerate(self.addresses, FIRST_PORT)
            ],
            "clients": [str(ip_network(f"{self._address_of_a_pod()}/16", strict=False))],
            "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        }

    def objects(self, **spec: Any) -> list[Manifest]:
        """Everything that it is made of; `spec` is the SenderPool's."""
        places = self._node()["status"]["addresses"]
        host = next(one["address"] for one in places if one["type"] == "InternalIP")
        pointers = self.release.zones.pointers
        addresses = [
            {"address": address, "ehlo": pointers[address], "proxy": f"socks5://{host}:{port}"}
            for port, address in enumerate(self.addresses, FIRST_PORT)
        ]
        password = {"name": "password", "key": "hash"}
        submitter = {"domains": [self.release.domain], "stream": self.name, "passwordSecretRef": password}
        return [
            ours("IPPool", self.name, {"addresses": addresses, "binding": {"mode": "socks5"}}),
            self.release.sender_pool(self.name, self.name, stream=self.name, **spec),
            ours("Submitter", self.name, {**submitter, "username": self.name}),
            metrics_service(),
        ]

    def ready(self, seconds: float = 180.0) -> None:
        """Wait until its objects say so, and all pods have read what they say."""
        for kind in ("ippool", "senderpool", "submitter"):
            eventually(f"{kind}/{self.name} is ready", self._is_ready(kind), seconds)
        self.release.settled(seconds)

    def remove(self) -> None:
        """Delete it. Raises CommandFailed."""
        kubectl = self.release.kubectl
        kubectl.delete("submitter", self.name, "--timeout=60s")
        if kubectl.get("senderpool", self.name) is not None:
            kubectl.patch("senderpool", self.name, {"metadata": {"annotations": {ABANDON: "true"}}})
        for kind in ("senderpool", "ippool"):
            kubectl.delete(kind, self.name, "--timeout=100s")
        kubectl.delete("service", SERVICE)

    def change(self, spec: dict[str, Any]) -> None:
        """Merge this into the SenderPool's spec. Raises CommandFailed."""
        self.release.kubectl.patch("senderpool", self.name, {"spec": spec})

    def scale(self, replicas: int) -> None:
        """`kubectl scale senderpool`. Raises CommandFailed."""
        self.release.kubectl("scale", "senderpool", self.name, f"--replicas={replicas}")

    def body(self) -> Manifest:
        """The SenderPool. Raises CommandFailed."""
        found = self.release.kubectl.get("senderpool", self.name)
        assert found is not None, f"SenderPool {self.name} is gone"
        return found

    def asked(self) -> int:
        """`spec.replicas`. Raises CommandFailed."""
        return int(self.body()["spec"]["replicas"])

    def senders(self) -> tuple[int, int]:
        """How many pods it has, and how many are ready. Raises CommandFailed."""
        selector = f"{component('sender')},postrail.io/pool={self.name}"
        pods = self.release.kubectl.every("pods", selector)
        return len(pods), len(self.release.kubectl.ready_pods(selector))

    def _is_ready(self, kind: str) -> Callable[[], bool]:
        return lambda: is_true(self.release.kubectl.get(kind, self.name), "Ready")

    def _address_of_a_pod(self) -> str:
        found = eventually("a pod of routing", lambda: self.release.kubectl.ready_pods(component("routing")))
        return str(found[0]["status"]["podIP"])

    def _node(self) -> Manifest:
        found = self.release.kubectl.get("node", self.release.node())
        assert found is not None
        return found


def metrics_service() -> Manifest:
    """By its name the DNS gives the addresses of the senders' pods."""
    selector = {"app.kubernetes.io/instance": RELEASE, "app.kubernetes.io/component": "sender"}
    ports = [{"name": "health", "port": 9464}]
    return resource("Service", SERVICE, spec={"clusterIP": "None", "selector": selector, "ports": ports})


@dataclass(slots=True)
class History:
    """How many senders a pool was asked for, had, and had ready, whenever that changed."""

    pool: Pool
    lines: list[str] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _last: tuple[int, ...] = ()

    def look(self) -> tuple[int, int, int]:
        """What it is now; a change is remembered. Raises CommandFailed."""
        now = self.pool.asked(), *self.pool.senders()
        if now != self._last:
            self._last = now
            self.lines.append(f"{time.monotonic() - self._begun:.0f} s: asked {now[0]}, pods {now[1]}, ready {now[2]}")
        return now

    def until(self, replicas: int, seconds: float = 240.0) -> None:
        """Wait until so many are asked for, are there, and are ready; fails the test with the history when it takes longer."""
        deadline = time.monotonic() + seconds
        while self.look() != (replicas, replicas, replicas):
            assert time.monotonic() < deadline, f"not {replicas} senders after {seconds:g} s: {self}"
            time.sleep(1)

    def never_above(self, replicas: int, seconds: float) -> None:
        """Watch for so long that no more are asked for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.look()[0] <= replicas, str(self)
            time.sleep(2)

    def __str__(self) -> str:
        return "; ".join(self.lines)
