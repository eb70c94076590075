"""Postrail over Kafka: a broker, and every service in a process of its own, all on the same cores.

The broker is a single node: a record is stored once, and Kafka does not flush it before the acknowledgement. So this row shows
what the hops cost; durability comes from replicas on other machines, which one machine cannot have.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from bench.load import BenchmarkError, free_port, wait_for_port
from bench.systems.postrail import Postrail, program
from tools.kafka import distribution

_ROOT = Path(__file__).resolve().parents[2]
_BROKER_SECONDS = 90.0
_PARTITIONS = 8
SERVICES = ("signing", "routing", "scheduler", "sender", "ingress")


class PostrailOnKafka(Postrail):
    """The same services, each alone.

    Attributes:
        copies: how many processes of a service run; one where nothing is said.
        arguments: of a service's command line, beside its configuration.
        sources: how many source addresses the pool has: a sender owns whole (address, site) pairs.
    """

    name: ClassVar[str] = "postrail-kafka"
    label: ClassVar[str] = "Postrail on Kafka"
    copies: ClassVar[dict[str, int]] = {}
    arguments: ClassVar[dict[str, tuple[str, ...]]] = {}
    sources: ClassVar[int] = 8

    @staticmethod
    def version() -> str:
        """Fetch Kafka where needed; return the versions."""
        try:
            distribution.fetch()
        except distribution.KafkaMissing as error:
            raise BenchmarkError(str(error)) from error
        return f"{Postrail.version().partition(',')[0]}, one process a service) on Kafka {distribution.KAFKA_VERSION}"

    def launch(self) -> None:
        """Start the broker, make the topics, start the services downstream first."""
        port = free_port()
        data = self.setup.directory / "kafka"
        self.spawn(
            "kafka",
            [sys.executable, "-m", "tools.kafka", "--port", str(port), "--data", str(data)],
            {"PYTHONPATH": str(_ROOT)},
        )
        wait_for_port(port, _BROKER_SECONDS, f"Kafka (log in {self.setup.directory}/kafka.log)")
        file = self.setup.directory / "postrail.yaml"
        file.write_text(json.dumps(self._over_kafka(port), indent=2))  # JSON is YAML
        command = [str(program()), "topics", "apply", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.setup.directory)
        if done.returncode:
            raise BenchmarkError(f"postrail topics apply failed:\n{done.stdout}{done.stderr}")
        for service in SERVICES:
            for number in range(self.copies.get(service, 1)):
                self._start_service(service, number, port)

    def _start_service(self, service: str, number: int, port: int) -> None:
        """One process, with a file of its own: its name in the consumer group is there."""
        configuration = self._over_kafka(port, f"{service}-{number}")
        file = self.setup.directory / f"{service}-{number}.yaml"
        file.write_text(json.dumps(configuration, indent=2))
        command = [str(program()), service, "--config", str(file), *self.arguments.get(service, ())]
        self.spawn(f"{service}-{number}", command)

    def _over_kafka(self, port: int, instance: str | None = None) -> dict[str, object]:
        configuration = self.configuration()
        kafka = {
            "bootstrap_servers": [f"127.0.0.1:{port}"],
            "replication_factor": 1,
            "min_insync_replicas": 1,
            "partitions": _PARTITIONS,
        }
        if instance is not None:
            kafka["instance"] = instance
        sources = [{"address": f"127.0.0.{1 + number}", "ehlo": "postrail.test"} for number in range(self.sources)]
        return {**configuration, "log": {"kind": "kafka", "kafka": kafka}, "pools": {"default": {"sources": sources}}}
