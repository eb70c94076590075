"""The ledger over Kafka against deliberately broken builds: what it does not catch here it would not catch elsewhere either."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.chaos_broken import COMMIT_BEFORE_APPEND, EARLY_250
from tests.support.chaos_world import assert_nothing_lost
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import crash_under_load
from tests.support.kafka_world import kafka_world

ARRIVAL_SECONDS = 5.0


async def a_moment() -> None:
    await asyncio.sleep(random.uniform(0.3, 0.6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "killed"), [(EARLY_250, ["ingress"]), (COMMIT_BEFORE_APPEND, ["signing", "routing"])]
)
async def test_losses_are_caught(
    kafka_broker: KafkaBroker, kafka_prefix: str, breakage: str, killed: list[str]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.breakage, world.have_places = breakage, True
        await world.start()
        await crash_under_load(world, killed, 4, a_moment)
        await world.finished()
        await asyncio.sleep(ARRIVAL_SECONDS)
        balance = world.books.ledger.balance()
        assert balance.lost
        with pytest.raises(AssertionError, match="lost of"):
            assert_nothing_lost(world, balance)
