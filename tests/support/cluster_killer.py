"""Ends pods of a cluster in the ways in which they end: evicted, deleted by force, and with kill -9 from the node.

Owns a pod that sees the node's processes, in a namespace of its own, because a pod's first process cannot be killed from within.
Neighbour: `cluster_release`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from tests.support.cluster_release import Release, resource
from tests.support.kubectl import CommandFailed, Kubectl, Manifest, eventually

POD = "killer"
KILL = """\
import os, pathlib, sys
ids, killed = sys.argv[1:], 0
for place in pathlib.Path("/proc").glob("[0-9]*/cgroup"):
    try:
        text = place.read_text()
        if any(one in text for one in ids):
            os.kill(int(place.parent.name), 9)
            killed += 1
    except (FileNotFoundError, ProcessLookupError):
        pass
print(killed)
"""


@dataclass(frozen=True, slots=True)
class Killer:
    """Its pod runs on the release's node."""

    release: Release

    @property
    def kubectl(self) -> Kubectl:
        """In its namespace."""
        return Kubectl(f"{self.release.place.namespace}-killer")

    def start(self) -> None:
        """Run its pod. Raises CommandFailed."""
        privileged = {"pod-security.kubernetes.io/enforce": "privileged"}
        self.kubectl.apply(resource("Namespace", self.kubectl.namespace, labels=privileged))
        container = {
            "name": POD,
            "image": self.release.place.image,
            "command": ["sleep", "infinity"],
            "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        }
        spec = {
            "hostPID": True,
            "nodeName": self.release.node(),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        }
        self.kubectl.apply(resource("Pod", POD, spec=spec))
        eventually("the killer's pod runs", self.kubectl.ready_pods)

    def remove(self) -> None:
        """Take it away. Raises CommandFailed."""
        self.kubectl("delete", "namespace", self.kubectl.namespace, "--ignore-not-found", "--timeout=60s")

    def kill(self, pod: Manifest) -> None:
        """kill -9 for every process of a pod's containers. Raises CommandFailed."""
        ids = [one["containerID"].split("//")[1] for one in pod["status"]["containerStatuses"]]
        killed = self.kubectl("exec", POD, "--", "python", "-c", KILL, *ids)
        assert int(killed) > 0, f"no process of {pod['metadata']['name']} was found on the node"


def delete_by_force(kubectl: Kubectl, pod: Manifest) -> None:
    """`kubectl delete pod --force --grace-period=0`: the pod is replaced before it has ended. Raises CommandFailed."""
    kubectl.delete("pod", pod["metadata"]["name"], "--force", "--grace-period=0")


def evict(kubectl: Kubectl, pod: Manifest, seconds: float = 120.0) -> None:
    """What `kubectl drain` does to each pod: asked again while a disruption budget forbids it."""
    name = pod["metadata"]["name"]
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/eviction"
    about = {"name": name, "namespace": kubectl.namespace}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about})
    deadline = time.monotonic() + seconds
    while True:
        try:
            kubectl("create", "--raw", path, "--filename", "-", given=eviction)
        except CommandFailed as error:
            if "not found" in str(error):
                return
            if "disruption budget" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(2)
        else:
            return
