"""The properties of a node: broker and controller in one process, small and quick to notice faults.

Pure text. `nodes` writes it to files. Its values suit tests: a handful of partitions for Kafka's own topics, no waiting before
a rebalance, sessions as short as a test asks for; topics are never created by accident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Access:
    """A listener with TLS and SASL beside the plain one: who may come in, and what it shows them."""

    username: str
    password: str
    certificate_chain_file: Path
    """PEM: the private key (PKCS #8, not encrypted), then the certificate."""


@dataclass(frozen=True, slots=True)
class NodePorts:
    plain: int
    controller: int
    secure: int | None = None
    """The listener of `Access`; None: there is none."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One node among `ports` (by node id)."""

    node_id: int
    ports: Mapping[int, NodePorts]
    data: Path
    access: Access | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def properties(settings: NodeSettings) -> str:
    """The node's server.properties."""
    nodes = len(settings.ports)
    copies, in_sync = min(3, nodes), 2 if nodes >= 3 else 1
    values = {
        "process.roles": "broker,controller",
        "node.id": str(settings.node_id),
        "controller.quorum.voters": ",".join(
            f"{node}@{HOST}:{ports.controller}" for node, ports in sorted(settings.ports.items())
        ),
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(settings.data / "log"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "2",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "2",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A node that is stopped or killed is noticed within seconds.
        "broker.heartbeat.interval.ms": "1000",
        "broker.session.timeout.ms": "4000",
        "replica.lag.time.max.ms": "4000",
        "request.timeout.ms": "4000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "1",
        "log.cleaner.dedupe.buffer.size": str(8 << 20),
        **_listeners(settings),
        **settings.extra,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _listeners(settings: NodeSettings) -> dict[str, str]:
    ports = settings.ports[settings.node_id]
    clients = [f"PLAINTEXT://{HOST}:{ports.plain}"]
    values = {}
    if settings.access is not None and ports.secure is not None:
        clients.append(f"SASL_SSL://{HOST}:{ports.secure}")
        values = _secure_listener(settings.access)
    return {
        "listeners": ",".join([*clients, f"CONTROLLER://{HOST}:{ports.controller}"]),
        "advertised.listeners": ",".join(clients),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        **values,
    }


def _secure_listener(access: Access) -> dict[str, str]:
    modules = "org.apache.kafka.common.security"
    plain = f'{modules}.plain.PlainLoginModule required user_{access.username}="{access.password}";'
    scram = f"{modules}.scram.ScramLoginModule required;"
    return {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.ssl.keystore.type": "PEM",
        "listener.name.sasl_ssl.ssl.keystore.location": str(access.certificate_chain_file),
        "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
    }


def scram_users(access: Access | None) -> Sequence[str]:
    """The arguments of the storage tool that make the user of SCRAM."""
    if access is None:
        return ()
    user = f"[name={access.username},password={access.password}]"
    return ("--add-scram", f"SCRAM-SHA-256={user}", "--add-scram", f"SCRAM-SHA-512={user}")
