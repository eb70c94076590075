"""Stop and start of the whole system, and of the broker, at any moment of a run: the ledger balances."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from tests.support.chaos_source import source
from tests.support.chaos_world import assert_nothing_lost
from tests.support.kafka import KafkaCluster
from tests.support.kafka_chaos import crash, figures
from tests.support.kafka_world import SERVICES, KafkaWorld, kafka_world
from tests.support.processes import daemon_folder

MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "2000"))
ROUNDS = max(1, MESSAGES // 5000)
"""How often each of them happens."""
RATE = float(os.environ.get("CHAOS_MESSAGES_PER_SECOND", "200"))


async def stop_system(world: KafkaWorld, cluster: KafkaCluster) -> None:
    """As an operator does."""
    await world.stop()
    await world.start()


async def kill_system(world: KafkaWorld, cluster: KafkaCluster) -> None:
    """As a power failure of all machines but the broker's."""
    await crash(world, *SERVICES)
    await world.start()


async def stop_broker(world: KafkaWorld, cluster: KafkaCluster) -> None:
    """In good order, for some seconds."""
    (node,) = cluster.nodes
    await asyncio.to_thread(node.stop)
    await asyncio.sleep(random.uniform(0, 5))
    await asyncio.to_thread(cluster.start)


async def kill_broker(world: KafkaWorld, cluster: KafkaCluster) -> None:
    """At once, for some seconds."""
    (node,) = cluster.nodes
    node.kill()
    await asyncio.sleep(random.uniform(0, 5))
    await asyncio.to_thread(cluster.start)


@pytest.mark.slow
@pytest.mark.timeout(300 + MESSAGES // 8)
async def test_the_ledger_balances_whenever_the_system_and_the_broker_stop(
    kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    seed = random.randrange(1 << 32)
    random.seed(seed)
    events = [stop_system, kill_broker, kill_system, stop_broker] * ROUNDS
    random.shuffle(events)
    with daemon_folder("kafka-alone") as folder, KafkaCluster(folder, 1) as cluster:
        async with kafka_world(cluster.bootstrap, kafka_prefix, kafka={"delivery_timeout_seconds": 4}) as world:
            world.have_places = True
            await world.start()
            async with source(
                world.injector, per_second=RATE, sessions=64, sizes_bytes=(200, 3000, 12_000, 60_000)
            ) as load:
                for number, happens in enumerate(events, 1):
                    moment = random.uniform(number - 1, number) * MESSAGES / (len(events) + 1)
                    await world.until("the moment", lambda: load.accepted >= moment, 600)  # noqa: B023
                    await happens(world, cluster)
                await world.until("all are accepted", lambda: load.accepted >= MESSAGES, 600)
            balance = await world.settle(180 + MESSAGES / 100)
        names = ", ".join(happens.__name__ for happens in events)
        run = f"stop and start in a run of {load.accepted} messages at {load.rate():.0f}/s ({names}; seed {seed})"
        figure(figures(run, world, balance, world.books.in_flight))
        assert_nothing_lost(world, balance)
        assert balance.duplicates <= world.books.in_flight
