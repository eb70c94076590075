"""Faults 6, 8 and 9: brokers fail under load, one of three, two, all; and acknowledgements that fewer have than are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from postrail.core import topics
from postrail.core.records import Lane
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaCluster
from tests.support.kafka_chaos import figures, load, set_on_topic
from tests.support.kafka_world import KafkaWorld, kafka_world
from tests.support.processes import daemon_folder
from tools.kafka.nodes import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BROKERS = 3
DELIVERY_SECONDS = 4.0
RATE = 60.0
SESSIONS = 4
MANY = 40
REFUSED = "451 4.3.0"
ACCEPTED = topics.laned(topics.ACCEPTED, Lane.URGENT)
PATIENT = {"delivery_timeout_seconds": DELIVERY_SECONDS}


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with daemon_folder("kafka-cluster") as folder, KafkaCluster(folder, BROKERS) as running:
        yield running


async def accepts(world: KafkaWorld, count: int = MANY) -> None:
    """Return when so many more messages got their 250."""
    wanted = len(world.injector.accepted) + count
    await world.until(f"{count} more are accepted", lambda: len(world.injector.accepted) >= wanted)


async def refuses(world: KafkaWorld) -> None:
    """Return when all that is offered has been refused for a while."""
    injector = world.injector
    some = injector.refused[REFUSED] + SESSIONS  # whatever was under way before is answered
    await world.until("mail is refused", lambda: injector.refused[REFUSED] >= some)
    accepted, more = len(injector.accepted), some + SESSIONS
    await world.until("more mail is refused", lambda: injector.refused[REFUSED] >= more)
    assert len(injector.accepted) == accepted, "a 250 that too few brokers stand for"


async def leader(cluster: KafkaCluster, topic: str) -> Node:
    """The node that leads the first partition of a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
        node_id = next(part["leader"] for part in described["partitions"] if part["partition"] == 0)
    finally:
        await admin.close()
    return next(node for node in cluster.nodes if node.node_id == node_id)


async def want_in_sync(world: KafkaWorld, replicas: int) -> None:
    """Say how many replicas must have a record of what ingress writes before the brokers acknowledge it."""
    await set_on_topic(world, ACCEPTED, f"min.insync.replicas={replicas}")


async def test_one_broker_down_accepts_and_two_down_refuses(
    cluster: KafkaCluster, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(cluster.bootstrap, kafka_prefix, brokers=BROKERS, kafka=PATIENT) as world:
        await world.start()
        async with load(world, per_second=RATE, sessions=SESSIONS):
            await accepts(world)
            first = await leader(cluster, world.prefix + ACCEPTED)
            first.kill()
            await accepts(world)
            another = await leader(cluster, world.prefix + ACCEPTED)
            assert another is not first
            another.kill()
            await refuses(world)
            await asyncio.to_thread(cluster.start)
            await accepts(world)
        assert not world.injector.lost_in, "ingress did not stay up"
        assert set(world.injector.refused) <= {REFUSED}
        balance = await world.settle()
        figure(figures("fault 9, the leader killed, then one more of 3 brokers", world, balance))
        assert_even(world, balance)


async def test_without_enough_brokers_there_is_no_250_and_it_resumes_by_itself(
    cluster: KafkaCluster, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(cluster.bootstrap, kafka_prefix, brokers=BROKERS, kafka=PATIENT) as world:
        await world.start()
        async with load(world, per_second=RATE, sessions=SESSIONS):
            await accepts(world)
            cluster.nodes[0].kill()
            await want_in_sync(world, BROKERS)  # the leader alone would take the records: only acks=all refuses
            await refuses(world)
            await want_in_sync(world, 2)
            await accepts(world)
            for node in cluster.nodes:
                node.kill()
            await refuses(world)
            await asyncio.to_thread(cluster.start)
            await accepts(world)
        assert not world.injector.lost_in, "ingress did not stay up"
        assert set(world.injector.refused) == {REFUSED}
        balance = await world.settle()
        figure(figures("faults 6 and 8, too few replicas in sync; no broker at all", world, balance))
        assert_even(world, balance)
