"""The books of a run on a cluster: what an injector was told `250` for, against what the receivers recorded.

Owns the injector's pod and the reading of its output. The rules are the ledger's. Neighbours: `cluster_injector` (what runs in
the pod), `cluster_receivers`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from postrail.demo.ledger import Balance, Bounce, Ledger, body_digest, bounces_in
from tests.support.cluster_receivers import Receivers
from tests.support.kubectl import Kubectl, Manifest, eventually

SCRIPT = Path(__file__).with_name("cluster_injector.py")
RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@dataclass(slots=True)
class Injected:
    """What an injector has said."""

    offered: dict[str, bytes] = field(default_factory=dict)
    accepted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Injector:
    """A pod that submits. `prefix` begins the ledger ids of all its messages."""

    kubectl: Kubectl
    name: str
    prefix: str

    def said(self) -> Injected:
        """What it has said so far. Raises CommandFailed."""
        found = Injected()
        for line in self.kubectl("logs", self.name).splitlines():
            if not line.startswith("["):
                continue
            word, *rest = json.loads(line)
            if word == "offered":
                found.offered[rest[0]] = bytes.fromhex(rest[2])
            elif word == "accepted":
                found.accepted[rest[0]] = tuple(rest[1])
            elif word == "refused":
                found.refused[rest[0]] = rest[1]
            elif word == "broken":
                found.broken[rest[0]] = rest[1]
            elif word == "done":
                found.done = True
        return found

    def stop(self) -> None:
        """Let it end after the messages that it has begun. Raises CommandFailed."""
        self.kubectl("exec", self.name, "--", "touch", "/tmp/stop")

    def wait(self, seconds: float = 120.0) -> Injected:
        """Wait for its end; what it said. Fails the test when it does not end in time."""
        phases = {"Succeeded", "Failed"}
        eventually(f"the end of {self.name}", lambda: self._phase() in phases, seconds)
        said = self.said()
        assert said.done, self.kubectl("logs", self.name, "--tail", "40")
        return said

    def delete(self) -> None:
        """Take the pod away. Raises CommandFailed."""
        self.kubectl.delete("pod", self.name, "--grace-period", "1", "--wait=false")

    def _phase(self) -> str:
        pod = self.kubectl.get("pod", self.name)
        return str(pod["status"].get("phase", "")) if pod else ""


def injector_pod(name: str, image: str, settings: dict[str, object]) -> tuple[Manifest, Manifest]:
    """The pod of an injector and the ConfigMap with its script. It keeps to the restricted pod security standard."""
    labels = {"app.kubernetes.io/name": "injector"}
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "injector", "labels": labels},
        "data": {"injector.py": SCRIPT.read_text(encoding="utf-8")},
    }
    container = {
        "name": "injector",
        "image": image,
        "command": ["python", "/injector/injector.py", json.dumps(settings)],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "script", "mountPath": "/injector"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "script", "configMap": {"name": "injector"}}, {"name": "tmp", "emptyDir": {}}],
        },
    }
    return script, pod


def ledger(injected: Sequence[Injected], receivers: Receivers, prefix: str) -> Ledger:
    """The ledger of everything that these injectors said and the receivers recorded."""
    found = Ledger()
    for said in injected:
        for ledger_id, digest in said.offered.items():
            found.offered(ledger_id, digest)
        for ledger_id, recipients in said.accepted.items():
            for recipient in recipients:
                found.submitted(ledger_id, recipient, said.offered[ledger_id])
    for arrival in receivers.arrivals():
        if arrival.ledger_id.startswith(prefix):
            for recipient in arrival.received.recipients:
                found.received(arrival.ledger_id, recipient, body_digest(arrival.received.content))
        for bounce in bounces_in(arrival.received.content):
            if bounce.entry.ledger_id.startswith(prefix):
                found.bounced(Bounce(*bounce))
    return found


def settle(injectors: Sequence[Injector], receivers: Receivers, prefix: str, seconds: float = 180.0) -> Balance:
    """Wait until something was heard of all that was accepted, or the time is over; the balance, which then shows losses."""
    said = [injector.wait() for injector in injectors]
    assert any(one.accepted for one in said), f"nothing was accepted: {said}"
    until = time.monotonic() + seconds
    while (found := ledger(said, receivers, prefix)).open_count and time.monotonic() < until:
        time.sleep(1)
    return found.balance()
