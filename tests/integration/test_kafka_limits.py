"""Limits over several senders: measured at the receiver, by source address and in any second, while partitions move."""

from __future__ import annotations

import time
from collections import defaultdict

from postrail.demo.receivers import Behaviour, Session
from tests.support.chaos_world import DOMAINS, assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_world import kafka_world

LIMIT = 10
SOURCES = tuple(f"127.0.2.{number}" for number in (1, 2, 3))
MESSAGES = 400


class Watched(Behaviour):
    """Notes when each source address begins a message."""

    times: defaultdict[tuple[str, str], list[float]]

    def mail(self, session: Session, reverse_path: str) -> str | None:
        self.times[session.receiver.name, session.client_address].append(time.monotonic())
        return None


async def test_senders_keep_the_limits_of_each_address_together(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    watched = type("WatchedHere", (Watched,), {"times": times})
    overrides = {
        "pools": {"default": {"sources": [{"address": at, "ehlo": "out.shop.example"} for at in SOURCES]}},
        "delivery": {"default_limits": {"messages_per_second": LIMIT, "new_connections_per_minute": 60_000}},
    }
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, behaviour=watched, overrides=overrides) as world:
        world.injector.domains = DOMAINS[:1]
        world.injector.max_recipients = 1
        await world.start("scheduler", "routing", "signing", "ingress", "sender", "sender-2")
        third = await world.begin("sender-3")
        for _ in range(MESSAGES):
            assert (await world.injector.send(world.injector.letter())).startswith("250")
        await world.until("the third sender has joined", third.is_ready)
        assert world.books.ledger.open_count, "the third sender came too late to share the work"
        await world.stop("sender-2")
        assert_even(world, await world.settle())
    most = {
        key: max(
            sum(start <= at < start + 1.0 for at in found[index : index + 3 * LIMIT])
            for index, start in enumerate(found)
        )
        for key, found in times.items()
    }
    print(f"most in any second, by receiver and source address: {most}")
    assert {source for _, source in most} == set(SOURCES)
    assert max(most.values()) <= LIMIT + 1, most
