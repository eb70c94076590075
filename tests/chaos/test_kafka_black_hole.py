"""Fault 15: one destination takes connections and says nothing, with a long queue; the others' mail is as quick as before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from postrail.demo.receivers import Behaviour
from tests.support.arrivals import Arrivals
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_churn import churn
from tests.support.kafka_world import kafka_world

HOLE, OTHERS = "alpha.example", ("beta.example", "gamma.example")
BACKLOG = int(os.environ.get("CHAOS_BACKLOG", "4000"))
SITE_QUEUE = 500
MEASURED = 150
PATIENCE = 10
"""How many times slower than before is certainly wrong; the share that is printed should be 2 or less on a quiet machine."""
REST_SECONDS = 45
"""What waits comes to its sender again after so long, all of it: that is not measured. By default the tiers spread it."""
RETRY = {name: [REST_SECONDS] for name in ("delays_seconds", "tiers_seconds", "site_backoff_seconds")}
OVERRIDES = {
    "delivery": {
        "timeouts": {"greeting_seconds": 5},
        "retry": RETRY,
        "max_in_memory": 1000,
        "max_site_queue": SITE_QUEUE,
    }
}


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_a_black_hole_with_a_long_queue_delays_nobody_else(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=OVERRIDES) as world:
        arrivals = Arrivals(world)
        await world.start()
        await world.injector.submit(50)
        before = await arrivals.p99_seconds(OTHERS, MEASURED)
        hole = world.receivers[HOLE]
        hole.behaviour = HangsAt("greeting")
        for session in list(hole.sessions):
            session.cut()
        injector = world.injector
        injector.domains, injector.max_recipients, injector.sizes_bytes, injector.pause_seconds = [HOLE], 1, (2000,), 0
        written = await churn(world)
        await injector.submit(BACKLOG, sessions=8)
        await world.routed()
        while (await churn(world)).since(written).records["deferred"] < BACKLOG - SITE_QUEUE:  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.5)
        during = await arrivals.p99_seconds(OTHERS, MEASURED)
        waiting = world.books.ledger.open_count
        hole.behaviour = Behaviour()
        for session in list(hole.sessions):
            session.cut()
        balance = await world.settle(240)
        figure(
            figures(f"fault 15, a black hole with {waiting} queued", world, balance)
            + f"; the others' p99: {before * 1000:.0f} ms before, {during * 1000:.0f} ms with it ({during / before:.2f} x)"
        )
        assert waiting >= BACKLOG
        assert during < PATIENCE * before
        assert_even(world, balance)
