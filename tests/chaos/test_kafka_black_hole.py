"""Fault 15: one destination takes connections and says nothing, with a long queue; the others' mail is as quick as before.

With the back-offs and tiers of the default configuration, and in three phases: while the queue is taken in, while it waits, and
while what waits comes back to its sender. The first is printed and not judged: the submissions alone may take all that the
machine can do. At the end the queue is looked at, message for message. That all of it arrives once the destination answers is a
run of its own, with short tiers and little memory, in which what is parked goes round all the time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from postrail.core.delivery_config import RetryConfig
from postrail.demo.receivers import Behaviour
from tests.support.arrivals import Arrivals, p99
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_source import source
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_churn import churn
from tests.support.kafka_queue import queued
from tests.support.kafka_world import KafkaWorld, kafka_world

HOLE, OTHERS = "alpha.example", ("beta.example", "gamma.example")
BACKLOG = int(os.environ.get("CHAOS_BACKLOG", "4000"))
SESSIONS = 16
MEASURED, WINDOW = 500, 50
PATIENCE = 10
"""How many times slower than before is certainly wrong; the shares that are printed should be 2 or less on a quiet machine."""
RETRY = RetryConfig()
FIRST_SECONDS, SECOND_SECONDS = RETRY.site_backoff_seconds[:2]
RETRIED_SECONDS = 60.0
"""How long is watched what comes back, and as long again as the queue took to be taken in."""
SEEN = int(min(BACKLOG, RETRIED_SECONDS * RETRY.returns_per_second) / 2)
TIMEOUTS = {"greeting_seconds": 5}
RESTING = {"delivery": {"timeouts": TIMEOUTS, "retry": RETRY.model_dump(mode="json")}}
SITE_QUEUE, GOING_ROUND = 500, min(BACKLOG, 4000)
SHORT = {name: [2, 15] for name in ("delays_seconds", "tiers_seconds", "site_backoff_seconds")}
ROUND = {"delivery": {"timeouts": TIMEOUTS, "retry": SHORT, "max_in_memory": 1000, "max_site_queue": SITE_QUEUE}}


def behave(world: KafkaWorld, behaviour: Behaviour) -> None:
    """From now on the hole answers like this, on connections that are open, too."""
    hole = world.receivers[HOLE]
    hole.behaviour = behaviour
    for session in list(hole.sessions):
        session.cut()


@pytest.mark.slow
@pytest.mark.timeout(420 + BACKLOG // 50)
async def test_a_black_hole_with_a_long_queue_delays_nobody_else(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=RESTING) as world:
        arrivals = Arrivals(world)
        taken: dict[str, list[float]] = {}

        async def measure(phase: str, goes_on: Callable[[], bool]) -> None:
            found = taken.setdefault(phase, [])
            while len(found) < MEASURED or goes_on():
                found += await arrivals.taken_seconds(OTHERS, WINDOW)

        await world.start()
        await world.injector.submit(50)
        await measure("before", lambda: False)
        behave(world, HangsAt("greeting"))
        began, written = time.monotonic(), await churn(world)
        async with source(
            world.injector, count=BACKLOG, domains=[HOLE], sizes_bytes=(2000,), sessions=SESSIONS
        ) as filling:
            await measure("taken in", lambda: not filling.ended)
        took = time.monotonic() - began
        await measure("waiting", lambda: False)
        waiting = world.books.ledger.open_count
        returns_after = FIRST_SECONDS if took < FIRST_SECONDS else FIRST_SECONDS + SECOND_SECONDS
        await asyncio.sleep(max(0.0, began + returns_after - time.monotonic()))
        came_before = (await churn(world)).since(written).records["due"]
        watched_until = began + returns_after + took + RETRIED_SECONDS
        await measure("coming back", lambda: time.monotonic() < watched_until)
        came_back = (await churn(world)).since(written).records["due"] - came_before
        await world.stop()
        shown = await queued(world)
        balance = world.books.ledger.balance(shown)
        before = p99(taken.pop("before"))
        phases = ", ".join(
            f"{phase} {p99(found) * 1000:.0f} ms ({p99(found) / before:.2f} x, {len(found)} messages)"
            for phase, found in taken.items()
        )
        figure(
            figures(f"fault 15, a black hole with {waiting} queued", world, balance)
            + f"\n  taken in within {took:.0f} s; {came_back} came back while watched; {balance.queued} shown by the queue"
            + f"\n  the others' p99: {before * 1000:.0f} ms before, {phases}"
        )
        assert waiting >= BACKLOG
        assert came_back >= SEEN, "next to nothing came back: the run proves little"
        assert shown.total() == len(shown) == balance.queued, "something waits twice, or was delivered and waits"
        assert max(p99(taken["waiting"]), p99(taken["coming back"])) < PATIENCE * before
        assert_even(world, balance)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_what_waited_for_a_black_hole_arrives_once_it_answers(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=ROUND) as world:
        await world.start()
        await world.injector.submit(50)
        behave(world, HangsAt("greeting"))
        written = await churn(world)
        async with source(
            world.injector, count=GOING_ROUND, domains=[HOLE], sizes_bytes=(2000,), sessions=SESSIONS
        ) as filling:
            await world.until("the queue is accepted", lambda: filling.ended, 120)
        await world.routed()
        while (await churn(world)).since(written).records["deferred"] < GOING_ROUND - SITE_QUEUE:  # noqa: ASYNC110  # another process tells
            await asyncio.sleep(0.5)
        waiting = world.books.ledger.open_count
        behave(world, Behaviour())
        balance = await world.settle(150)
        figure(figures(f"fault 15, all {waiting} that waited for a black hole", world, balance))
        assert waiting >= GOING_ROUND
        assert_even(world, balance)
