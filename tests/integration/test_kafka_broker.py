"""The Kafka that tests use: it starts, its secure listener wants a password, and a cluster survives the loss of one node."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.support.kafka import KafkaBroker, KafkaCluster, SecureListener
from tests.support.processes import wait_for


async def produce(bootstrap: str, topic: str, value: bytes) -> int:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=4_000)
    await producer.start()
    try:
        return int((await producer.send_and_wait(topic, value)).offset)
    finally:
        await producer.stop()


async def create(bootstrap: str, topic: str, copies: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, copies)])
    finally:
        await admin.close()


async def test_shared_broker_stores_what_it_acknowledges(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    topic = f"{kafka_prefix}one"
    await create(kafka_broker.bootstrap, topic, 1)
    assert await produce(kafka_broker.bootstrap, topic, b"a") == 0
    assert await produce(kafka_broker.bootstrap, topic, b"b") == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_secure_listener_wants_the_password(kafka_broker: KafkaBroker, mechanism: str) -> None:
    secure = kafka_broker.secure
    if secure is None:
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS names a broker whose listeners are not ours")
    await log_in(secure, mechanism, secure.password)
    with pytest.raises(KafkaError):
        await log_in(secure, mechanism, "wrong")


async def log_in(secure: SecureListener, mechanism: str, password: str) -> None:
    client = AIOKafkaAdminClient(
        bootstrap_servers=secure.bootstrap,
        security_protocol="SASL_SSL",
        ssl_context=ssl.create_default_context(cafile=str(secure.ca_file)),
        sasl_mechanism=mechanism,
        sasl_plain_username=secure.username,
        sasl_plain_password=password,
    )
    try:
        await client.start()
        await client.list_topics()
    finally:
        await client.close()


@pytest.mark.slow
async def test_cluster_goes_on_without_one_node_and_takes_it_back(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path) as cluster:
        first, second, third = cluster.nodes
        await create(cluster.bootstrap, "mail", 3)
        assert await produce(cluster.bootstrap, "mail", b"a") == 0
        first.kill()
        wait_for("the others notice", lambda: first.node_id not in second.view().brokers)
        assert await produce(cluster.bootstrap, "mail", b"b") == 1
        cluster.start()
        third.signal(signal.SIGSTOP)
        wait_for("the others notice", lambda: third.node_id not in second.view().brokers)
        assert await produce(cluster.bootstrap, "mail", b"c") == 2
        third.signal(signal.SIGCONT)
        cluster.wait_whole()
