"""Faults 11 and 31 over Kafka: every service from one process to four and back under load, then a rolling restart of all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from tests.support.chaos_source import source
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_world import KafkaWorld, kafka_world

RATE = float(os.environ.get("CHAOS_MESSAGES_PER_SECOND", "200"))
SESSIONS = 128
SCALED = ("sender", "routing", "signing", "ingress")
ALL = (*SCALED, "scheduler")
MOST = 4
ALL_RUN_SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
"""How long all four of each run before they are stopped."""
SLOWEST_OF_SECONDS = 10.0


def others(service: str) -> list[str]:
    """The processes beside the first."""
    return [f"{service}-{number}" for number in range(2, MOST + 1)]


async def arrive(world: KafkaWorld, count: int = 20) -> None:
    """Return when so many more have arrived: no service waits for another."""
    wanted = sum(receiver.accepted for receiver in world.receivers.values()) + count
    await world.until("mail arrives", lambda: sum(one.accepted for one in world.receivers.values()) >= wanted)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_service_from_one_to_four_and_back_under_load(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, kafka={"partitions": MOST}) as world:
        await world.start()
        async with source(world.injector, per_second=RATE, sessions=SESSIONS) as load:
            for service in SCALED:
                await world.start(*others(service))
                await arrive(world)
            await asyncio.sleep(ALL_RUN_SECONDS)
            for service in SCALED:
                await world.stop(*others(service))
                await arrive(world)
        balance = await world.settle()
        rates = f"{load.rate():.1f} messages/s ({load.slowest_rate(SLOWEST_OF_SECONDS):.1f} in the slowest 10 s)"
        figure(figures(f"fault 11, each service 1 -> {MOST} -> 1 under {rates}", world, balance))
        assert_even(world, balance)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_rolling_restart_of_everything_under_load(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        await world.start()
        async with source(world.injector, per_second=RATE, sessions=SESSIONS) as load:
            for service in ALL:
                await world.start(f"{service}-2")
                await asyncio.sleep(0.2)
                await world.stop(service)
                await arrive(world)
        balance = await world.settle()
        figure(
            figures(
                f"faults 11 and 31, rolling restart of everything under {load.rate():.1f} messages/s", world, balance
            )
        )
        assert_even(world, balance)
