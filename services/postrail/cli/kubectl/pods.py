"""In which pod a question about mail is answered. Pure.

Every service's pod has the configuration and may read the log; one that does little is preferred. Neighbour: `main`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postrail.cli.exit_status import EXIT_UNAVAILABLE, EXIT_USAGE
from postrail.cli.kubectl.client import KubectlFailed

PREFERRED = ("scheduler", "routing", "signing", "ingress", "sender")
"""Components whose pods can answer, the best first."""
COMPONENT = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"


@dataclass(frozen=True, slots=True)
class Place:
    """A container in which `postrail` runs."""

    pod: str
    container: str
    release: str


def selector(release: str | None) -> str:
    """The labels of the pods of a release; None: of any."""
    return "app.kubernetes.io/name=postrail" + (f",{INSTANCE}={release}" if release else "")


def choose(pods: Sequence[Mapping[str, Any]], where: str) -> Place:
    """The pod that answers: one that is ready where there is one.

    Args:
        pods: as the API server gives them.
        where: was looked, for people.

    Raises:
        KubectlFailed: there is none, or several releases have some.
    """
    found = [pod for pod in pods if _labels(pod).get(COMPONENT) in PREFERRED]
    releases = sorted({_labels(pod).get(INSTANCE, "") for pod in found})
    if len(releases) > 1:
        raise KubectlFailed(f"{where} has several releases ({', '.join(releases)}): choose with --release", EXIT_USAGE)
    running = [pod for pod in found if _is_running(pod)]
    if not running:
        states = ", ".join(f"{pod['metadata']['name']} is {_state(pod)}" for pod in found) or "there are no pods at all"
        text = f"no pod of Postrail runs in {where}: {states}; look with kubectl get pods, and at --namespace"
        raise KubectlFailed(text, EXIT_UNAVAILABLE)
    best = min(running, key=lambda pod: (not _is_ready(pod), PREFERRED.index(_labels(pod)[COMPONENT])))
    return Place(best["metadata"]["name"], best["spec"]["containers"][0]["name"], releases[0])


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return labels


def _is_running(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _state(pod: Mapping[str, Any]) -> str:
    """Why it does not run, as far as it is known."""
    status = pod.get("status", {})
    containers = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    waiting = [one["state"]["waiting"].get("reason", "") for one in containers if one.get("state", {}).get("waiting")]
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return next((reason for reason in waiting if reason), str(status.get("phase", "Unknown")))
