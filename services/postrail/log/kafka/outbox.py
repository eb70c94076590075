"""Records that wait to be appended, partition by partition, and the calls that wait for them. Pure bookkeeping.

Owns the order within a partition, and who is told what when. Sending is `producer`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.interface import LogError, Position, RecordTooLarge
from postrail.log.kafka.records import Headers


class Call:
    """One call of `append`: its future resolves when all of its records are acknowledged, or fails at the first failure.

    Records that are too large fail it at the end: the others are stored first.
    """

    __slots__ = ("deadline", "future", "left", "positions", "too_large")

    def __init__(self, future: asyncio.Future[list[Position]], count: int, deadline: float) -> None:
        self.future = future
        self.left = count
        self.positions: list[Position | None] = [None] * count
        self.deadline = deadline
        self.too_large: dict[int, str] = {}

    def stored(self, place: int, position: Position) -> None:
        """One record is acknowledged."""
        self.positions[place] = position
        self._one_less()

    def refused(self, place: int, text: str) -> None:
        """One record is too large."""
        self.too_large[place] = text
        self._one_less()

    def _one_less(self) -> None:
        self.left -= 1
        if self.left or self.future.done():
            return
        if self.too_large:
            self.future.set_exception(RecordTooLarge(next(iter(self.too_large.values())), self.too_large.keys()))
        else:
            self.future.set_result(self.positions)  # type: ignore[arg-type]  # all of them are set now

    def failed(self, error: LogError) -> None:
        """One record is not stored, or nobody knows."""
        if not self.future.done():
            self.future.set_exception(error)


class Item(NamedTuple):
    """One record that waits, the `place`th of its call."""

    call: Call
    place: int
    key: bytes
    value: bytes
    headers: Headers
    size_bytes: int


class Queue:
    """What waits for one partition; `topic` is the brokers' name of it. While a batch is `in_flight`, the next one waits."""

    __slots__ = ("in_flight", "items", "partition", "single", "topic", "where")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.where = KafkaPartition(topic, partition)
        self.items: deque[Item] = deque()
        self.in_flight = False
        self.single = 0
        """So many records are sent one by one: a batch with them was refused as too large."""

    def put_back(self, items: list[Item]) -> None:
        """These were refused together; try each alone."""
        self.items.extendleft(reversed(items))
        self.single += len(items)

    def expire(self, now: float, error: LogError) -> int:
        """Fail the calls whose time is over; returns the bytes that wait no more."""
        freed = 0
        items = self.items
        while items and (items[0].call.deadline <= now or items[0].call.future.done()):
            item = items.popleft()
            item.call.failed(error)
            freed += item.size_bytes
            self.single = max(0, self.single - 1)
        return freed
