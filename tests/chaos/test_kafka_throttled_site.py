"""A site that takes one message a second has a long queue: the others' mail is as quick as before, and what waits rests.

Two runs: with the tiers of the default configuration, at the end of which the queue is looked at, message for message; and
with short ones, in which what is parked comes back and is parked anew all the time, until the limit is lifted and all of it
arrives.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from postrail.core.config import Config
from postrail.core.delivery_config import RetryConfig
from postrail.core.limits import Limits, message_pace
from postrail.core.parking import Parking
from postrail.core.retry import turn
from postrail.demo.ledger import Balance
from tests.support.arrivals import Arrivals
from tests.support.chaos_source import source
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_churn import Churn, churn
from tests.support.kafka_queue import queued
from tests.support.kafka_world import KafkaWorld, kafka_world

SLOW, OTHERS = "alpha.example", ("beta.example", "gamma.example")
SITE = f"mx.{SLOW}"
A_SECOND = 1.0
BACKLOG = int(os.environ.get("CHAOS_BACKLOG", "1500"))
SITE_QUEUE = BACKLOG // 10
MEASURED = max(150, BACKLOG // 50)
SHORT_TIERS = (1.0, 5.0, max(15.0, BACKLOG / 100))
SESSIONS = 64
PATIENCE = 10
"""How many times slower than before is certainly wrong; the share that is printed should be 2 or less on a quiet machine."""


def overrides(tiers: tuple[float, ...] | None) -> dict[str, Any]:
    """One source address, one slow site; these tiers, or those of the default configuration."""
    retry = RetryConfig() if tiers is None else RetryConfig(tiers_seconds=tiers, delays_seconds=tiers)
    return {
        "pools": {"default": {"sources": [{"address": "127.0.2.1", "ehlo": "out1.shop.example"}]}},
        "delivery": {
            "site_limits": {SITE: {"messages_per_second": A_SECOND}},
            "retry": retry.model_dump(mode="json"),
            "max_site_queue": SITE_QUEUE,
        },
    }


def rest_seconds(config: Config) -> float:
    """How long what is parked rests in the log at least: behind a full queue."""
    retry, each = config.delivery.retry, message_pace(Limits(messages_per_second=A_SECOND), 1).interval_seconds
    return turn(Parking(0.0).behind(SITE_QUEUE * each, each, 0.0), retry, 0.0, math.inf).due_at


async def fill(world: KafkaWorld) -> str:
    """Submit the backlog, and return once all that exceeds the sender's memory is parked."""
    began, before = time.monotonic(), await churn(world)
    slow = world.receivers[SLOW]
    async with source(world.injector, count=BACKLOG, domains=[SLOW], sizes_bytes=(300,), sessions=SESSIONS) as filling:
        await world.until("the backlog is accepted", lambda: filling.ended, 60 + BACKLOG / 20)
    accepted_seconds = time.monotonic() - began
    await world.routed()
    while True:
        written = (await churn(world)).since(before)
        if written.records["deferred"] >= BACKLOG - SITE_QUEUE - slow.accepted:
            took = time.monotonic() - began
            return f"{BACKLOG} taken in {accepted_seconds:.0f} s, parked after {took:.0f} s; {written}"
        assert time.monotonic() - began < 120 + BACKLOG / 10, f"it is not parked: {written}\n{world.said()}"
        await asyncio.sleep(1)


async def measure(
    world: KafkaWorld, watched_seconds: float, figure: Callable[[str], None], name: str
) -> tuple[Churn, int]:
    """Fill, measure the others before and with it, and what is written meanwhile; returns that, and how many waited."""
    arrivals = Arrivals(world)
    await world.start()
    await world.injector.submit(50)
    before = await arrivals.p99_seconds(OTHERS, MEASURED)
    filled = await fill(world)
    during = await arrivals.p99_seconds(OTHERS, MEASURED)
    start = await churn(world)
    waiting, slow_before = world.books.ledger.open_count, world.receivers[SLOW].accepted
    await asyncio.sleep(watched_seconds)
    slow_got = world.receivers[SLOW].accepted - slow_before
    written = (await churn(world)).since(start)
    an_hour, rest = 3600 / written.seconds, rest_seconds(world.config)
    figure(
        f"a site at 1/s with {waiting} waiting, {name}: {filled}\n"
        f"  the others' p99 of {MEASURED}: {before * 1000:.0f} ms before, {during * 1000:.0f} ms with it "
        f"({during / before:.2f} x); the site got {slow_got / watched_seconds:.2f}/s\n"
        f"  written then, without any other mail, {written}\n"
        f"  parked anew: {written.records['deferred'] * an_hour / waiting:.3f} times a message and hour, "
        f"at most {3600 / rest:.3f} by core/parking.py and core/retry.py; "
        f"the disk grows by {written.all_bytes * an_hour / 1e6:.1f} MB an hour"
    )
    assert waiting >= BACKLOG * 9 // 10
    assert during < PATIENCE * before
    assert written.records["deferred"] <= waiting * (1 + written.seconds / rest), "what is parked does not rest"
    return written, waiting


async def lift(world: KafkaWorld) -> None:
    """Take the limit back, as an operator does."""
    path = world.system.config_file
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    del values["delivery"]["site_limits"]
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    await world.stop("sender")
    await world.start("sender")


@pytest.mark.slow
@pytest.mark.timeout(300 + BACKLOG // 20)
async def test_a_throttled_site_delays_nobody_and_its_mail_rests_in_the_log(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=overrides(None)) as world:
        await measure(world, max(20.0, BACKLOG * 0.006), figure, "tiers of the default configuration")
        await world.stop()
        shown = await queued(world)
        balance: Balance = world.books.ledger.balance(shown)
        figure(figures(f"  of it {balance.queued} shown by the queue, {balance.delivered} delivered", world, balance))
        assert shown.total() == len(shown) == balance.queued, "something waits twice, or was delivered and waits"
        assert_even(world, balance)


@pytest.mark.slow
@pytest.mark.timeout(300 + BACKLOG // 20)
async def test_all_of_it_arrives_when_the_limit_is_lifted(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=overrides(SHORT_TIERS)) as world:
        longest = SHORT_TIERS[-1]
        written, waiting = await measure(world, 1.3 * longest, figure, f"parked for {longest:g} s at most")
        assert written.records["deferred"] >= (waiting - SITE_QUEUE) // 2, "nothing came back: the run proves nothing"
        await lift(world)
        balance = await world.settle(60 + longest + BACKLOG / 40)
        figure(figures("  the limit lifted, all of it", world, balance))
        assert_even(world, balance)
