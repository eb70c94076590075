"""Fault 5 over Kafka: ingress is killed at random points of DATA and commit."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support.chaos_world import any_moment, assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import crash_under_load, figures
from tests.support.kafka_world import kafka_world

CRASHES = 100


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_accepted_mail_survives_crashes_of_ingress_and_nothing_appears_twice(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    seed = random.randrange(1 << 32)
    random.seed(seed)
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        await world.start()
        await crash_under_load(world, ["ingress"] * CRASHES, lambda _: any_moment())
        lost_in = world.injector.lost_in
        balance = await world.settle()
        figure(figures(f"fault 5, kill -9 of ingress (seed {seed}, {dict(lost_in)})", world, balance))
        assert lost_in["content"] >= 3, f"crashes did not hit DATA: {lost_in}"
        assert lost_in["dot"] >= 3, f"crashes did not hit the commit: {lost_in}"
        assert_even(world, balance)
        assert not list(world.system.folder.glob("data/blobs/*/*.part")), "a killed writer's part was left behind"
