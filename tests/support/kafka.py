"""A real Kafka for tests: one broker that the whole run shares, and clusters of a test's own that may be broken.

Owns how tools/kafka is used by tests: what is missing skips on a laptop and fails in the CI. With KAFKA_BOOTSTRAP_SERVERS set the
shared broker is that one, so tests use names of their own (`kafka_prefix`) and leave other topics alone. Neighbours:
tools/kafka (which fetches and runs it), `tools` (the rule).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from postrail.demo.credentials import write_certificate
from tests.support.processes import daemon_folder
from tests.support.tools import in_ci, require_tool
from tools.kafka import distribution
from tools.kafka.nodes import Cluster, KafkaFailed, Node
from tools.kafka.settings import HOST, Access

BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
USERNAME, PASSWORD = "postrail", "correct horse"


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """Where the shared broker is."""

    bootstrap: str
    secure: SecureListener | None
    """None where the broker is not ours."""


@dataclass(frozen=True, slots=True)
class SecureListener:
    """A listener with TLS that wants SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""

    bootstrap: str
    ca_file: Path
    username: str = USERNAME
    password: str = PASSWORD


class KafkaCluster:
    """A cluster for one test: nodes that may be killed, stopped and started again. A context manager.

    `nodes[i]` has `kill()`, `signal(SIGSTOP)`, `begin()`, `view()`, `address`, `pid`; `start()` brings back all that ended.
    """

    def __init__(self, folder: Path, brokers: int = 3, extra: Mapping[str, str] | None = None) -> None:
        require_kafka()
        with _shown():
            self._cluster = Cluster(folder, brokers, extra=extra, heap_mebibytes=256)

    @property
    def nodes(self) -> list[Node]:
        return self._cluster.nodes

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes."""
        return self._cluster.bootstrap

    def __enter__(self) -> Self:
        with _shown():
            self._cluster.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cluster.__exit__(*exception)

    def start(self) -> None:
        """Start all that ended, with their data; returns when all know each other and their replicas are in sync."""
        with _shown():
            self._cluster.start()

    def wait_whole(self) -> None:
        """Return when all nodes know each other and their replicas are in sync: the next one may be broken."""
        with _shown():
            self._cluster.wait_whole()


def require_kafka() -> None:
    """Return when Kafka can be run here, fetching it the first time.

    Raises:
        pytest.skip.Exception: it cannot, on a laptop.
        pytest.fail.Exception: it cannot, in the CI.
    """
    require_tool("java", "runs Kafka")
    if not distribution.fetched():
        require_tool("mvn", "fetches Kafka")
    try:
        distribution.fetch()
    except distribution.KafkaMissing as error:
        if in_ci():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """One broker for all tests of the run; topics are not created by accident, and its data end with it."""
    if given := os.environ.get(BOOTSTRAP_VARIABLE):
        yield KafkaBroker(given, None)
        return
    require_kafka()
    with daemon_folder("kafka") as folder:
        certificate, key = write_certificate(folder, "localhost", HOST)
        chain = folder / "keystore.pem"
        chain.write_bytes(key.read_bytes() + certificate.read_bytes())
        with contextlib.ExitStack() as running:
            with _shown():
                cluster = running.enter_context(Cluster(folder, access=Access(USERNAME, PASSWORD, chain)))
            yield KafkaBroker(cluster.bootstrap, SecureListener(cluster.secure_bootstrap, certificate))


@pytest.fixture
def kafka_prefix() -> str:
    """What the names of this test's topics begin with, and of its groups: nobody else's do."""
    return f"t{uuid.uuid4().hex[:10]}."


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    """A node that fails is told by its log, not by a traceback of ours."""
    try:
        yield
    except KafkaFailed as error:
        pytest.fail(str(error), pytrace=False)
