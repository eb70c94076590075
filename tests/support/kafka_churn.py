"""What a run has written to its topics: records ever appended, and bytes that the broker stores.

Owns the two readings and their difference. Neighbours: `kafka_world`, whose topics are read; tools/kafka, whose command tells the
sizes of the partitions' files.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from postrail.core import topics
from tests.support.kafka_world import KafkaWorld
from tools.kafka import commands

COMMITS = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class Churn:
    """Records and bytes by family of topics (`deferred`, `outbound`, …), lanes and tiers added up, and of what groups commit.

    Attributes:
        seconds: between two readings; of one, on the clock of `time.monotonic`.
    """

    seconds: float
    records: Mapping[str, int]
    stored_bytes: Mapping[str, int]

    def since(self, earlier: Churn) -> Churn:
        """What was added since then."""
        records = {name: count - earlier.records.get(name, 0) for name, count in self.records.items()}
        stored = {name: size - earlier.stored_bytes.get(name, 0) for name, size in self.stored_bytes.items()}
        return Churn(self.seconds - earlier.seconds, records, stored)

    @property
    def all_bytes(self) -> int:
        return sum(self.stored_bytes.values())

    def __str__(self) -> str:
        added = ", ".join(
            f"{name} {count} ({self.stored_bytes.get(name, 0) / 1e6:.2f} MB)"
            for name, count in self.records.items()
            if count
        )
        return f"in {self.seconds:.0f} s: {added or 'nothing'}"


async def churn(world: KafkaWorld) -> Churn:
    """What was written until now."""
    sizes = await asyncio.to_thread(_sizes, world)
    consumer = AIOKafkaConsumer(bootstrap_servers=world.bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(sizes))
    finally:
        await consumer.stop()
    records: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for part, size in sizes.items():
        family = topics.base_of(part.topic.removeprefix(world.prefix)).partition(".")[0].strip("_")
        records[family] += ends[part]
        stored[family] += size
    return Churn(time.monotonic(), records, stored)


def _sizes(world: KafkaWorld) -> Counter[TopicPartition]:
    """The bytes of each partition of this world's topics and of the groups' commits, all copies added up."""
    said = commands.run(commands.LOG_DIRS, world.bootstrap, "--describe")
    described = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    sizes: Counter[TopicPartition] = Counter()
    for broker in described["brokers"]:
        for folder in broker["logDirs"]:
            for part in folder["partitions"]:
                topic, _, number = part["partition"].rpartition("-")
                if topic.startswith((world.prefix, COMMITS)):
                    sizes[TopicPartition(topic, int(number))] += part["size"]
    return sizes
