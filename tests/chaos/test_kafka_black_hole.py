"""Fault 15: one destination takes connections and says nothing, with a long queue; the others' mail is as quick as before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from postrail.demo.receivers import Behaviour, Received
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_world import KafkaWorld, kafka_world

HOLE, OTHERS = "alpha.example", ("beta.example", "gamma.example")
BACKLOG = int(os.environ.get("CHAOS_BACKLOG", "4000"))
MEASURED = 150
PAUSE_SECONDS = 0.02
PATIENCE = 10
"""How many times slower than before is certainly wrong; the share that is printed should be 2 or less on a quiet machine."""
RETRY = {"delays_seconds": [2, 15], "tiers_seconds": [2, 15], "site_backoff_seconds": [2, 15]}
OVERRIDES = {
    "delivery": {"timeouts": {"greeting_seconds": 5}, "retry": RETRY, "max_in_memory": 1000, "max_site_queue": 500}
}


class Arrivals:
    """When each recipient's mail came."""

    def __init__(self, world: KafkaWorld) -> None:
        self.at: dict[str, float] = {}
        self._world = world
        for receiver in world.receivers.values():
            receiver.on_received = self._received

    def _received(self, message: Received) -> None:
        for recipient in message.recipients:
            self.at[recipient] = time.monotonic()
        self._world.books.received(message)

    async def p99_seconds(self) -> float:
        """The 99th percentile of the time from the final dot of a submission to the delivery, for the other domains."""
        sent: dict[str, float] = {}
        for number in range(MEASURED):
            letter = self._world.injector.letter(OTHERS[number % len(OTHERS)], size_bytes=2000)
            sent[letter.recipients[0]] = time.monotonic()
            assert (await self._world.injector.send(letter)).startswith("250")
            await asyncio.sleep(PAUSE_SECONDS)
        await self._world.until("the others' mail has arrived", lambda: sent.keys() <= self.at.keys())
        taken = sorted(self.at[recipient] - begun for recipient, begun in sent.items())
        return taken[len(taken) * 99 // 100]


async def routed(world: KafkaWorld) -> None:
    """Return when all that was accepted has reached the sender's topics."""
    while any(name.startswith(("signing", "routing signed")) for name in await world.unfinished()):  # noqa: ASYNC110  # another process tells
        await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_black_hole_with_a_long_queue_delays_nobody_else(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=OVERRIDES) as world:
        arrivals = Arrivals(world)
        await world.start()
        await world.injector.submit(50)
        before = await arrivals.p99_seconds()
        hole = world.receivers[HOLE]
        hole.behaviour = HangsAt("greeting")
        for session in list(hole.sessions):
            session.cut()
        injector = world.injector
        injector.domains, injector.max_recipients, injector.sizes_bytes, injector.pause_seconds = [HOLE], 1, (2000,), 0
        await injector.submit(BACKLOG, sessions=8)
        await routed(world)
        during = await arrivals.p99_seconds()
        waiting = world.books.ledger.open_count
        hole.behaviour = Behaviour()
        for session in list(hole.sessions):
            session.cut()
        balance = await world.settle(150)
        figure(
            figures(f"fault 15, a black hole with {waiting} queued", world, balance)
            + f"; the others' p99: {before * 1000:.0f} ms before, {during * 1000:.0f} ms with it ({during / before:.2f} x)"
        )
        assert waiting >= BACKLOG
        assert during < PATIENCE * before
        assert_even(world, balance)
