"""Two senders share a destination with exact limits, across rebalances: what the receiving site counts by source address."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable

import pytest

from postrail.demo.receivers import Received
from tests.support.chaos_world import assert_nothing_lost
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import crash, figures
from tests.support.kafka_world import KafkaWorld, kafka_world

DOMAIN = "alpha.example"
SOURCES = ("127.0.2.1", "127.0.2.2", "127.0.2.3")
LIMIT = 10
LETTERS = 450
TICK_SECONDS = 0.005
LOOKS = 3
"""So many ticks may lie between the arrival of a message and the moment when a process that does not stand still notes it."""
OVERRIDES = {
    "pools": {
        "default": {
            "sources": [
                {"address": address, "ehlo": f"out{number}.shop.example"} for number, address in enumerate(SOURCES)
            ]
        }
    },
    "delivery": {"default_limits": {"messages_per_second": LIMIT, "new_connections_per_minute": 60_000}},
}


class Sink:
    """Notes when each message came, by source address: not before, and not after.

    A message is noted when this process comes to it. Where it stands still for a while that is later than the message came, and
    what came in the meantime is noted at once. It came after the process last looked at its sockets: that is known by the ticks.
    """

    def __init__(self, world: KafkaWorld) -> None:
        self.times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._world = world
        self._ticks = deque([time.monotonic()], maxlen=LOOKS)
        world.receivers[DOMAIN].on_received = self._received

    async def tick(self) -> None:
        """Runs beside the test for ever."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._ticks.append(time.monotonic())

    def _received(self, message: Received) -> None:
        self.times[message.client_address].append((self._ticks[0], time.monotonic()))
        self._world.books.received(message)

    @property
    def count(self) -> int:
        return sum(map(len, self.times.values()))

    def most(self) -> dict[str, int]:
        """By address: the most that surely came within one second, wherever that second begins."""
        return {source: _most(times) for source, times in self.times.items()}


def _most(times: list[tuple[float, float]]) -> int:
    most = first = 0
    for last, (_, noted) in enumerate(times):
        while noted - times[first][0] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.slow
async def test_limits_are_exact_with_two_senders_and_across_rebalances(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides=OVERRIDES, kafka={"partitions": 6}) as world:
        world.injector.domains = (DOMAIN,)
        world.injector.sizes_bytes = (500,)
        world.injector.max_recipients = 1
        sink = Sink(world)
        ticking = asyncio.create_task(sink.tick())
        await world.start()
        await world.start("sender-2")
        await world.injector.submit(LETTERS)
        began, before = time.monotonic(), sink.count
        await asyncio.sleep(3)
        await world.stop("sender-2")
        await asyncio.sleep(2)
        await world.start("sender-3")
        await asyncio.sleep(2)
        await crash(world, "sender-3")
        await world.until("all mail has arrived", lambda: not world.books.ledger.open_count)
        rate = (sink.count - before) / (time.monotonic() - began)
        ticking.cancel()
        most = sink.most()
        balance = await world.settle()
        figure(
            figures(
                "limit of 10 messages/s per address, 2 senders, 3 addresses, 3 rebalances",
                world,
                balance,
                world.books.in_flight,
            )
            + f"; most in any one second: {most}; {rate:.1f} messages/s in all"
        )
        assert set(most) == set(SOURCES)
        assert max(most.values()) <= LIMIT + 1
        assert balance.duplicates <= world.books.in_flight
        assert_nothing_lost(world, balance)
