"""How a record lies in Kafka, and the partition that its key picks.

The record's key is the key, its value the value; a body travels as the header "b". No header: no body. Owns nothing else;
whoever reads topics without the log (inspection) uses the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

from postrail.core.identity import group_of
from postrail.log.interface import Append, Record

BODY_HEADER = "b"
RECORD_OVERHEAD_BYTES = 100
"""More than what Kafka adds to key, value and body of one record."""

Headers = Sequence[tuple[str, bytes | None]]


class FetchedRecord(Protocol):
    """What this module needs of aiokafka's `ConsumerRecord`."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class InlineBody:
    """A body that came with its record."""

    __slots__ = ("in_memory",)

    def __init__(self, data: bytes) -> None:
        self.in_memory: bytes | None = data

    @property
    def size_bytes(self) -> int:
        return len(self.in_memory or b"")

    async def load(self) -> bytes:
        """The bytes."""
        return self.in_memory or b""


def partition_of(key: bytes, partitions: int) -> int:
    """Which of a topic's `partitions` a key belongs to; the same for topics with as many, and for messages of one group."""
    return crc32(group_of(key)) % partitions


async def body_of(append: Append) -> bytes | None:
    """The bytes of an append's body.

    Raises:
        LogError: they cannot be read from the log that they lie in.
    """
    body = append.body
    if body is None or isinstance(body, bytes):
        return body
    data = body.in_memory
    return data if data is not None else await body.load()


def decode(topic: str, record: FetchedRecord) -> Record:
    """A record of `topic` (its name without prefix) as it was fetched."""
    body = None
    for name, data in record.headers:
        if name == BODY_HEADER:
            body = InlineBody(data or b"")
    return Record(
        topic, record.partition, record.offset, record.key or b"", record.value or b"", body, record.timestamp / 1000
    )


def size_of(record: FetchedRecord) -> int:
    """About what a fetched record takes in memory."""
    size = RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"")
    for _, data in record.headers:
        size += len(data or b"")
    return size
