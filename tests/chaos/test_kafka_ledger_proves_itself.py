"""The ledger over Kafka against deliberately broken builds: what it does not catch here it would not catch elsewhere either."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.support.chaos_broken import COMMIT_BEFORE_APPEND, EARLY_250
from tests.support.chaos_world import assert_nothing_lost
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import crash_under_load
from tests.support.kafka_world import KafkaWorld, kafka_world

ARRIVAL_SECONDS = 5.0


async def at_work(world: KafkaWorld, name: str) -> None:
    """Return when this service has just taken up something."""
    if name != "ingress":
        await world.goes_on(name)
        return
    accepted = world.books.ledger.accepted_count
    await world.until("mail is accepted", lambda: world.books.ledger.accepted_count > accepted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "killed"), [(EARLY_250, ["ingress"] * 4), (COMMIT_BEFORE_APPEND, ["signing", "routing"] * 2)]
)
async def test_losses_are_caught(
    kafka_broker: KafkaBroker, kafka_prefix: str, breakage: str, killed: list[str]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.breakage, world.have_places = breakage, True
        await world.start()
        await crash_under_load(world, killed, partial(at_work, world))
        await world.finished()
        await asyncio.sleep(ARRIVAL_SECONDS)
        balance = world.books.ledger.balance()
        assert balance.lost
        with pytest.raises(AssertionError, match="lost of"):
            assert_nothing_lost(world, balance)
