"""How long mail takes from its submission to its delivery, as a client and the receivers see it.

Owns that measure and no load. Its clock is that of the test's process, in which both ends live. Neighbours: `kafka_world`, whose
receivers it listens to, and `chaos_books`, which it tells what they said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from postrail.demo.receivers import Received
from tests.support.kafka_world import KafkaWorld

PAUSE_SECONDS = 0.02


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

    async def p99_seconds(self, domains: Sequence[str], count: int) -> float:
        """The 99th percentile of `taken_seconds`."""
        return p99(await self.taken_seconds(domains, count))

    async def taken_seconds(self, domains: Sequence[str], count: int) -> list[float]:
        """The times from the begin of each submission to its delivery.

        Args:
            domains: of the recipients, in turns; one message after the other.
        """
        sent: dict[str, float] = {}
        for number in range(count):
            letter = self._world.injector.letter(domains[number % len(domains)], size_bytes=2000)
            sent[letter.recipients[0]] = time.monotonic()
            assert (await self._world.injector.send(letter)).startswith("250")
            await asyncio.sleep(PAUSE_SECONDS)
        await self._world.until("the others' mail has arrived", lambda: sent.keys() <= self.at.keys())
        return [self.at[recipient] - begun for recipient, begun in sent.items()]


def p99(taken: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(taken)[len(taken) * 99 // 100]
