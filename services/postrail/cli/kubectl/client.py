"""Runs `kubectl`, with the connection options of the command line, and tells in words what it refused.

Owns the process and the translation of its errors; decides nothing about objects. `kubectl` brings every way of signing in that
the person has. Neighbours: `changes` and `pods` (pure), `main` (the commands).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_NOT_ALLOWED, EXIT_TEMPORARY, EXIT_UNAVAILABLE

Object = dict[str, Any]
REQUEST_SECONDS = 20
"""How long the API server may take to answer."""
_REMOTE_END = re.compile(r"command terminated with exit code (\d+)")
_NO_SERVER = (
    "Unable to connect to the server",
    "The connection to the server",
    "connection refused",
    "no such host",
    "i/o timeout",
    "context deadline exceeded",
    "Client.Timeout exceeded",
    "couldn't get current server API group list",
)
_BAD_KUBECONFIG = (
    "Error in configuration",
    "does not exist",
    "error loading config file",
    "no such file or directory",
    "no configuration has been",
)


class KubectlFailed(Exception):
    """It did not work; the text says what and what to do, `status` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class NotFound(KubectlFailed):
    """There is no such object."""


class Conflict(KubectlFailed):
    """Somebody else changed the object meanwhile."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Which cluster and namespace; None: as kubectl itself decides."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def arguments(self) -> list[str]:
        """As options of kubectl."""
        given = {"kubeconfig": self.kubeconfig, "context": self.context, "namespace": self.namespace}
        return [f"--{name}={value}" for name, value in given.items() if value is not None]

    @property
    def where(self) -> str:
        """The namespace in words."""
        return (
            f"the namespace {self.namespace}" if self.namespace else "the present namespace (choose with --namespace)"
        )


class Kubectl:
    """The program, for one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get(self, *what: str) -> Object:
        """An object, or a list of them.

        Args:
            what: arguments of `kubectl get`.

        Raises:
            KubectlFailed: it was refused, or nobody answered.
        """
        found = json.loads(self._run("get", *what, "--output=json", f"--request-timeout={REQUEST_SECONDS}s"))
        assert isinstance(found, dict)
        return found

    def items(self, *what: str) -> list[Object]:
        """The objects of a list. Raises as `get`."""
        return list(self.get(*what).get("items", ()))

    def patch(self, resource: str, name: str, change: Mapping[str, Any]) -> None:
        """Merge a change into an object (RFC 7396). Raises as `get`; Conflict where it names an older resourceVersion."""
        body = json.dumps(change, separators=(",", ":"))
        timeout = f"--request-timeout={REQUEST_SECONDS}s"
        self._run("patch", resource, name, "--type=merge", f"--patch={body}", "--output=name", timeout)

    def wait_for_rollout(self, selector: str, timeout_seconds: float) -> None:
        """Until all pods of these Deployments are those of their present template. Raises as `get`."""
        self._run("rollout", "status", "deployment", f"--selector={selector}", f"--timeout={timeout_seconds:.0f}s")

    def read_in_pod(self, pod: str, container: str, command: Sequence[str]) -> str:
        """What a command in a pod writes to standard output. Raises as `get`, also where the command fails."""
        return self._run("exec", pod, f"--container={container}", "--", *command)

    def run_in_pod(self, pod: str, container: str, command: Sequence[str]) -> int:
        """Run a command in a pod, with this process's standard output and error; its exit status.

        Raises:
            KubectlFailed: the command did not run.
        """
        arguments = self._arguments("exec", pod, f"--container={container}", "--", *command)
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  # the user's kubectl
            assert process.stderr is not None
            held = _pass_on(process.stderr)
            status = process.wait()
        if status == 0:
            return 0
        end = _REMOTE_END.search(held)
        if end is None:
            raise explain(held, f"{command[0]} in the pod {pod}", self.connection)
        return int(end[1])

    def _arguments(self, *arguments: str) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlFailed("kubectl is not on PATH: install it; this command works through it", EXIT_UNAVAILABLE)
        return [program, *self.connection.arguments(), *arguments]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(self._arguments(*arguments), capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise explain(done.stderr, f"kubectl {' '.join(arguments[:3])}", self.connection)
        return done.stdout


def _pass_on(lines: IO[str]) -> str:
    """Show what a command in a pod says on standard error; returns what is kubectl's own: its last line."""
    held = ""
    for line in lines:
        if held:
            sys.stderr.write(held)
        held = line
    if held and not (_REMOTE_END.search(held) or _is_of_kubectl(held)):
        sys.stderr.write(held)
    return held


def _is_of_kubectl(line: str) -> bool:
    return line.startswith(("Error from server", "error:", "Unable to connect", "The connection to the server"))


def explain(stderr: str, what: str, connection: Connection) -> KubectlFailed:
    """What an error of kubectl means, and what to do.

    Args:
        what: was tried.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not re.match(r"[IWEF]\d{4} ", line)]
    said = lines[-1] if lines else "kubectl said nothing"
    if "(Forbidden)" in stderr:
        return KubectlFailed(
            f"{what}: not allowed: {said}; the rights that each command needs are in docs/kubernetes/kubectl.md",
            EXIT_NOT_ALLOWED,
        )
    if "Unauthorized" in stderr or "must be logged in" in stderr:
        return KubectlFailed(f"{what}: the cluster does not know you: {said}; sign in to it again", EXIT_NOT_ALLOWED)
    if "the server doesn't have a resource type" in stderr:
        text = f"{what}: this cluster does not know the kinds of Postrail: {said}; look whether --context is right, or install it"
        return KubectlFailed(text, EXIT_UNAVAILABLE)
    if "(NotFound)" in stderr:
        return NotFound(f"{what}: {said}; looked in {connection.where}", 1)
    if "(Conflict)" in stderr:
        return Conflict(f"{what}: somebody else changed it at the same time; try again", EXIT_TEMPORARY)
    if any(sign in stderr for sign in _NO_SERVER):
        text = f"{what}: no cluster answers: {said}; look at --kubeconfig and --context, and whether the cluster is up"
        return KubectlFailed(text, EXIT_UNAVAILABLE)
    if any(sign in stderr for sign in _BAD_KUBECONFIG):
        return KubectlFailed(f"{what}: {said}; look at --kubeconfig and --context", EXIT_CONFIGURATION)
    return KubectlFailed(f"{what}: {said}", 1)
