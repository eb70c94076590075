"""Postrail with every service in a process of its own, on a Kafka log, behind the same methods as `postrail_process`.

Owns the processes. Its configuration has the log's prefix, so that no two of them share topics. Neighbours: `mail_world`, which
makes the configuration; `kafka`, which runs the broker.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.postrail_process import COMMAND, PostrailProcess
from tests.support.processes import Daemon, free_port, tail, wait_for

SERVICES = ("sender", "scheduler", "routing", "signing", "ingress")
"""Downstream first: the order in which they are started."""
START_SECONDS = 60.0


class PostrailServices(PostrailProcess):
    """One process of each service. Stopped upstream first, as nobody must be told to; any order is safe."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config)
        self._running: dict[str, Daemon] = {}
        self._ports: dict[str, int] = {}

    def start(self) -> None:
        """Make the topics, start all services and return when every one is ready."""
        self.write_config()
        made = self.run("topics", "apply")
        assert made.returncode == 0, made.stderr
        self._ports = self._choose_ports()
        for service, port in self._ports.items():
            arguments: list[str | Path] = [service, "--config", self.config_file, "--health-port", str(port)]
            self._running[service] = Daemon([*COMMAND, *arguments], self.log)
        for service, daemon in self._running.items():
            daemon.wait_until(f"readyz of {service}", self.ready, seconds=START_SECONDS)

    def _choose_ports(self) -> dict[str, int]:
        """A health port for each service, none of which another of this system will listen on."""
        taken = {int(listener["port"]) for listener in self.config["ingress"]["listeners"]}
        ports = {"ingress": int(self.config["health"]["port"])}
        taken.add(ports["ingress"])
        for service in SERVICES[:-1]:
            while (port := free_port()) in taken:
                pass
            taken.add(port)
            ports[service] = port
        return {service: ports[service] for service in SERVICES}

    def ready(self) -> bool:
        """Whether every service says that it is."""
        return all(map(self._answers, self._ports.values()))

    def metrics(self, worker: int = 0) -> str:
        """The text of /metrics of all services."""
        return "".join(self._fetch_from("metrics", port) for port in self._ports.values())

    @property
    def pid(self) -> int:
        """The process that takes mail in."""
        return self._running["ingress"].pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop as a service manager does; every exit status must be 0."""
        while self._running:
            service, daemon = self._running.popitem()
            status = daemon.stop(seconds=40, number=number)
            if status != 0:
                pytest.fail(f"postrail {service} ended with {status}\n{tail(self.log)}")

    def kill(self) -> None:
        """kill -9, all processes."""
        while self._running:
            self._running.popitem()[1].kill()
        wait_for("the end of all services", lambda: not self._processes())
