"""Runs the nodes of a Kafka cluster as processes of this machine: start, stop, kill, freeze, start again with their data.

Owns the processes and their folders. One node is a broker alone; three replicate (factor 3, two in sync), so that one may be
lost. Never listens outside loopback. Its neighbours: `distribution` (the jars), `settings` (the properties), `protocol` (whether
a node answers).
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from tools.kafka import distribution, protocol
from tools.kafka.distribution import KafkaMissing
from tools.kafka.settings import HOST, Access, NodePorts, NodeSettings, properties, scram_users

START_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1
_PORTS = range(20_000, 30_000)  # below those that outgoing connections take: a node's must be free when it starts again
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")
_LOG4J = f"-Dlog4j2.configurationFile=file:{Path(__file__).parent / 'log4j2.properties'}"


class KafkaFailed(Exception):
    """A node did not start or answer; the text ends with its log."""


class Node:
    """One process: a broker and controller. Its data outlive it."""

    def __init__(self, settings: NodeSettings, libraries: Path, heap_mebibytes: int) -> None:
        self.node_id = settings.node_id
        self.log = settings.data / "server.log"
        self._settings = settings
        self._libraries = libraries
        self._heap = f"-Xmx{heap_mebibytes}m"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT of its plain listener."""
        return f"{HOST}:{self._settings.ports[self.node_id].plain}"

    @property
    def secure_address(self) -> str:
        """HOST:PORT of its listener with TLS and SASL."""
        return f"{HOST}:{self._settings.ports[self.node_id].secure}"

    @property
    def pid(self) -> int:
        """Of the running process; 0 when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def view(self) -> protocol.View:
        """Which brokers it believes alive (none when it does not answer), and whether their replicas are in sync."""
        return protocol.ask(HOST, self._settings.ports[self.node_id].plain)

    def begin_format(self, cluster_id: str) -> subprocess.Popen[bytes] | None:
        """Start making its storage; None where it has some already."""
        self._settings.data.mkdir(parents=True, exist_ok=True)
        self._properties_file.write_text(properties(self._settings), encoding="utf-8")
        if (self._settings.data / "log" / "meta.properties").exists():
            return None
        arguments = ("format", "--config", str(self._properties_file), "--cluster-id", cluster_id)
        return self._java("kafka.tools.StorageTool", *arguments, *scram_users(self._settings.access))

    def begin(self) -> None:
        """Start the process; it does not serve yet."""
        if not self.pid:
            self._process = self._java(self._heap, "kafka.Kafka", str(self._properties_file))

    def signal(self, number: int) -> None:
        """Send the process a signal, such as SIGSTOP and SIGCONT."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a power failure would; its data stay as they are."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_SECONDS)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Ask it to end, and end it when it takes longer."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
            self.kill()

    def check_alive(self) -> None:
        """Raise KafkaFailed when the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise KafkaFailed(f"Kafka node {self.node_id} ended with {self._process.poll()}:\n{self.log_end()}")

    def log_end(self, lines: int = 40) -> str:
        """The end of what the node said."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or f"({self.log} is empty)"

    @property
    def _properties_file(self) -> Path:
        return self._settings.data / "server.properties"

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                ["java", *_JVM, _LOG4J, "-cp", f"{self._libraries}/*", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Cluster:
    """All nodes. As a context manager it starts them, and kills them at the end."""

    def __init__(
        self,
        data: Path,
        brokers: int = 1,
        *,
        ports: Sequence[int] = (),
        access: Access | None = None,
        extra: Mapping[str, str] | None = None,
        heap_mebibytes: int = 384,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            data: a folder; a cluster whose data are there already goes on with them.
            brokers: 1 or more; each is a controller too.
            ports: of the plain listeners, for as many brokers as it names; free ones for the others.
            access: adds a listener with TLS and SASL to each node.
            extra: more properties for every node; they win over the usual ones.

        Raises:
            KafkaMissing: Java is missing, or Kafka could not be fetched.
        """
        if shutil.which("java") is None:
            raise KafkaMissing("java is missing: Kafka runs on it; on Debian: apt-get install default-jre-headless")
        libraries = distribution.fetch()
        free = iter(free_ports(3 * brokers))
        by_node = {
            node: NodePorts(
                ports[node - 1] if node <= len(ports) else next(free), next(free), next(free) if access else None
            )
            for node in range(1, brokers + 1)
        }
        self.nodes = [
            Node(NodeSettings(node, by_node, data / f"node-{node}", access, extra or {}), libraries, heap_mebibytes)
            for node in by_node
        ]

    @property
    def bootstrap(self) -> str:
        """The plain listeners, as `bootstrap_servers` wants them."""
        return ",".join(node.address for node in self.nodes)

    @property
    def secure_bootstrap(self) -> str:
        """The listeners with TLS and SASL."""
        return ",".join(node.secure_address for node in self.nodes)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start every node that does not run, and wait until all know each other and their replicas are in sync.

        Raises:
            KafkaFailed: a node ended, or did not answer in time.
        """
        self._format()
        for node in self.nodes:
            node.begin()
        self.wait_whole()

    def wait_whole(self) -> None:
        """Wait until all nodes know each other and their replicas are in sync; raises KafkaFailed as `start`."""
        everyone = frozenset(node.node_id for node in self.nodes)
        self._wait(lambda: all(view.brokers >= everyone and view.in_sync for view in self._views()))

    def stop(self) -> None:
        """End every node in good order, as far as that is quick."""
        for node in self.nodes:
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        """End every node at once."""
        for node in self.nodes:
            node.kill()

    def _format(self) -> None:
        cluster_id = _new_cluster_id()
        begun = [(node, process) for node in self.nodes if (process := node.begin_format(cluster_id)) is not None]
        for node, process in begun:
            if process.wait(START_TIMEOUT_SECONDS) != 0:
                raise KafkaFailed(f"the storage of Kafka node {node.node_id} cannot be made:\n{node.log_end()}")

    def _views(self) -> Iterator[protocol.View]:
        return (node.view() for node in self.nodes)

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not ready():
            for node in self.nodes:
                node.check_alive()
            if time.monotonic() > deadline:
                ends = "\n".join(f"--- node {node.node_id}\n{node.log_end()}" for node in self.nodes)
                raise KafkaFailed(
                    f"after {START_TIMEOUT_SECONDS:g} s not all nodes know each other and are in sync\n{ends}"
                )
            time.sleep(_POLL_SECONDS)


def is_free(port: int) -> bool:
    """Whether a node could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on now, outside the range of outgoing connections."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise KafkaFailed(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def _new_cluster_id() -> str:
    """A random id as Kafka writes them, not starting with a dash, which would look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
