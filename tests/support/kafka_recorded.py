"""What the brokers hold as delivered: the books over Kafka are told it when a life ends.

Owns the reading of topics, each on from where it was read last: a run with many crashes looks often. A recipient counts as
recorded when the events say that it was delivered and no hand-over of it to a sender is without an outcome. Neighbours:
`kafka_world` has one of these for its topics, `chaos_books` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from postrail.core import topics
from postrail.core.identity import hand_over
from postrail.core.records import EventType
from postrail.wire import codec

GROUP = "default"
OUTBOUND = topics.outbound("default", GROUP)


@dataclass(slots=True)
class TopicReader:
    """Reads topics from their beginning, and on from there.

    Args:
        parts: the partitions of a topic.
    """

    bootstrap: str
    parts: Callable[[str], Sequence[TopicPartition]]
    _positions: dict[TopicPartition, int] = field(default_factory=dict)

    async def more(self, *names: str) -> list[bytes]:
        """The values of all records of these topics that were not read yet."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            parts = [part for name in names for part in self.parts(name)]
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            found: list[bytes] = []
            for part in parts:
                consumer.seek(part, self._positions.get(part, 0))
                while (position := await consumer.position(part)) < ends[part]:
                    batch = await consumer.getmany(part, timeout_ms=500)
                    found += [record.value or b"" for record in batch.get(part, ())]
                self._positions[part] = position
            return found
        finally:
            await consumer.stop()


@dataclass(slots=True)
class Recorded:
    """What is recorded as delivered in the topics that `reader` reads."""

    reader: TopicReader
    _delivered: set[str] = field(default_factory=set)
    _finished: set[str] = field(default_factory=set)
    _handed_over: dict[str, Sequence[str]] = field(default_factory=dict)

    async def now(self) -> frozenset[str]:
        """Recipients that the brokers hold as delivered: whoever takes over sends them nothing more."""
        for event in map(codec.decode_event, await self.reader.more(topics.EVENTS)):
            if event.type is EventType.DELIVERED:
                self._delivered.update(event.recipients)
        for value in await self.reader.more(topics.outcomes("default", GROUP)):
            self._finished.update(codec.decode_finished(value).names)
        for delivery in map(codec.decode_delivery, await self.reader.more(*topics.lanes(OUTBOUND))):
            self._handed_over[hand_over(delivery)] = [one.address for one in delivery.envelope.recipients]
        for name in self._handed_over.keys() & self._finished:
            del self._handed_over[name]
        return frozenset(self._delivered.difference(*self._handed_over.values()))
