"""kubectl and helm for tests: objects in and out, waiting for what must come true, and what a failure needs to be understood.

Owns the two command lines. Knows nothing of Postrail. Both programs are in PATH where the cluster's tool runs the tests; helm is
otherwise the one that `make helm` builds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tools.helm import helm as built_helm

Found = TypeVar("Found")
Manifest = dict[str, Any]
POLL_SECONDS = 0.5
COMMAND_SECONDS = 120.0


class CommandFailed(Exception):
    """kubectl or helm said no; the text is what it wrote."""


def eventually(
    what: str, probe: Callable[[], Found | None], seconds: float = 90.0, every: float = POLL_SECONDS
) -> Found:
    """The probe's first answer that is true; fails the test when there is none in time. A command that fails is no answer."""
    deadline = time.monotonic() + seconds
    trouble = ""
    while True:
        try:
            found = probe()
        except CommandFailed as error:
            found, trouble = None, f"; the last command said: {error}"
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s still waiting for: {what}{trouble}")
        time.sleep(every)


def run(command: Sequence[str | Path], given: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
    """What a command writes.

    Raises:
        CommandFailed: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise CommandFailed(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-4000:]}")
    return done.stdout


def helm(*arguments: str | Path, seconds: float = 1000.0) -> str:
    """What helm writes. Raises CommandFailed."""
    return run([shutil.which("helm") or built_helm(), *arguments], seconds=seconds)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str

    def __call__(self, *arguments: str, given: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """What kubectl writes. Raises CommandFailed."""
        return run(["kubectl", "--namespace", self.namespace, *arguments], given, seconds)

    def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply`; objects without a namespace are put into this one. Raises CommandFailed."""
        self("apply", "--filename", "-", given=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object; None where it does not exist. Raises CommandFailed."""
        found = self("get", kind, name, "--output", "json", "--ignore-not-found")
        return json.loads(found) if found.strip() else None

    def every(self, kind: str, selector: str = "") -> list[Manifest]:
        """All objects of a kind. Raises CommandFailed."""
        items: list[Manifest] = json.loads(self("get", kind, "--selector", selector, "--output", "json"))["items"]
        return items

    def delete(self, kind: str, name: str, *options: str) -> None:
        """Delete an object; one that is gone is well. Raises CommandFailed."""
        self("delete", kind, name, "--ignore-not-found", *options)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Merge a change into an object. Raises CommandFailed."""
        self("patch", kind, name, "--type", "merge", "--patch", json.dumps(change))

    def pods(self, selector: str = "") -> list[Manifest]:
        """The pods that have not ended, those that are being deleted left out. Raises CommandFailed."""
        found = self.every("pods", selector)
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in {"Succeeded", "Failed"}
        ]

    def ready_pods(self, selector: str = "") -> list[Manifest]:
        """Those of them that are ready. Raises CommandFailed."""
        return [pod for pod in self.pods(selector) if is_true(pod, "Ready")]

    def describe_trouble(self) -> str:
        """What a person wants to see when something did not come up: pods, events, and the ends of logs."""
        parts = [
            self._told("get", "pods", "--output", "wide"),
            self._told("get", "events", "--sort-by", ".lastTimestamp")[-6000:],
        ]
        for pod in self.every("pods"):
            if not is_true(pod, "Ready") and pod["status"].get("phase") != "Succeeded":
                name = pod["metadata"]["name"]
                parts.append(f"--- {name}\n{self._told('logs', name, '--all-containers', '--tail', '30')}")
        return "\n".join(parts)

    def _told(self, *arguments: str) -> str:
        try:
            return self(*arguments)
        except CommandFailed as error:
            return str(error)


def condition(body: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    """A condition in an object's status; {} where it has none of this type."""
    conditions = ((body or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def is_true(body: Mapping[str, Any] | None, kind: str) -> bool:
    """Whether the object has the condition, and it is true."""
    return condition(body, kind).get("status") == "True"
