"""What waits in the cluster of a `kafka_world`, as `postrail queue` shows it: for runs that end before all mail is delivered."""

from __future__ import annotations

from collections import Counter

from postrail.cli.queue import as_waiting
from postrail.cli.stores import inspecting
from postrail.core.topics import holds_mail
from postrail.demo.ledger import Entry
from tests.support.kafka_world import KafkaWorld


async def queued(world: KafkaWorld) -> Counter[Entry]:
    """Every recipient that the queue shows, as `postrail queue` does."""
    async with inspecting(world.config) as inspection:
        return Counter(
            [
                Entry(recipient.partition("@")[0].partition(".")[0], recipient)
                async for _, record in inspection.unfinished(holds_mail, None)
                for recipient in as_waiting(record).recipients
            ]
        )
