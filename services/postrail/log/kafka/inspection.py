"""`Inspection` of the log in a Kafka cluster: reads partitions without joining a group, beside running services or alone.

Owns which offsets are read, and in which order: first what the groups have committed, then where the partitions end, then the
topics in the order in which mail passes through them; so mail that moves meanwhile is seen at least once. A record comes
with its body, so a long queue is counted by arithmetic and only read in part. Neighbours: `catalogue` (topics, commits),
`connection`, `records`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import ConsumerRecord
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core import topics
from postrail.core.log_config import KafkaConfig
from postrail.log.inspect import Found, Wanted
from postrail.log.interface import LogUnavailable, Record, TopicPartition
from postrail.log.kafka import faults
from postrail.log.kafka.catalogue import Catalogue
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.records import decode, partition_of
from postrail.log.progress import Progress

REQUEST_TIMEOUT_SECONDS = 10.0
SILENCE_SECONDS = 15.0
POLL_MILLISECONDS = 500
POLL_RECORDS = 2000
FETCH_BYTES = 16 << 20
PARTITION_FETCH_BYTES = 512 << 10
_FAILURES = (errors.KafkaError, OSError, TimeoutError)
_ORDER = (topics.ACCEPTED, topics.ASIDE, topics.SIGNED, "outbound", "deferred", topics.DUE, topics.DEAD_LETTERS)

_NOTHING = Progress(0)
Judge = Callable[[ConsumerRecord], bool]


@dataclass(frozen=True, slots=True)
class _Window:
    """What is to be read of one partition: the offsets from `start` until `end`, at most `quota` that are not finished."""

    start: int
    end: int
    progress: Progress = _NOTHING
    quota: int | None = None

    @property
    def unfinished(self) -> int:
        """How many records in it are not finished."""
        above = sum(self.start <= offset < self.end for offset in self.progress.above)
        return max(0, self.end - self.start - above)


@asynccontextmanager
async def open_inspection(config: KafkaConfig) -> AsyncIterator[KafkaInspection]:
    """Connect for one look.

    Raises:
        LogUnavailable: no broker answers, or it does not let us in; the text says what is wrong.
    """
    connection = Connection(config, None)
    catalogue = Catalogue(config, connection)
    consumer = AIOKafkaConsumer(
        **connection.options("inspection", REQUEST_TIMEOUT_SECONDS),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
    )
    try:
        await catalogue.open()
        try:
            await consumer.start()
            await asyncio.sleep(0)  # its task must have begun before `stop`, which otherwise raises CancelledError
        except _FAILURES as error:
            raise faults.unreachable(connection.servers, error) from error
        yield KafkaInspection(connection.servers, catalogue, consumer)
    finally:
        await consumer.stop()
        await catalogue.close()


class KafkaInspection:
    """See `Inspection`. Made by `open_inspection`; one question at a time."""

    place_name = "partition"
    usual_limit: int | None = 20_000
    search_seconds: float | None = 86400.0

    def __init__(self, servers: str, catalogue: Catalogue, consumer: AIOKafkaConsumer) -> None:
        self._servers, self._catalogue, self._consumer = servers, catalogue, consumer

    async def keyed(self, topic: str, key: bytes, since: float) -> list[Record]:
        """As `Inspection.keyed`: reads the key's partition from that time on."""
        count = self._catalogue.partitions.get(topic, 0)
        if not count:
            return []
        windows = await self._since([TopicPartition(topic, partition_of(key, count))], since)
        return [record async for record in self._read(topic, windows, lambda record: record.key == key)]

    async def since(self, topic: str, since: float) -> AsyncIterator[Record]:
        """As `Inspection.since`."""
        windows = await self._since(self._partitions(topic), since)
        async for record in self._read(topic, windows, lambda _: True):
            yield record

    async def count_unfinished(self, wanted: Wanted) -> int:
        """As `Inspection.count_unfinished`; nothing is read."""
        windows = await self._unfinished(wanted)
        return sum(window.unfinished for of_topic in windows.values() for window in of_topic.values())

    async def unfinished(self, wanted: Wanted, limit: int | None) -> AsyncIterator[Found]:
        """As `Inspection.unfinished`."""
        windows = await self._unfinished(wanted)
        total = sum(window.unfinished for of_topic in windows.values() for window in of_topic.values())
        for topic, of_topic in windows.items():
            shares = of_topic if limit is None or total <= limit else _shares(of_topic, limit, total)
            async for record in self._read(topic, shares, lambda _: True):
                yield Found(f"{topic}/{record.partition}", record)

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self._catalogue.partitions.get(topic, 0))]

    async def _unfinished(self, wanted: Wanted) -> dict[str, dict[TopicPartition, _Window]]:
        """What is not finished of each topic that has any, in the order in which mail passes through."""
        names = sorted(filter(wanted, self._catalogue.partitions), key=_rank)
        readers: dict[str, list[str]] = {}
        for name in names:
            reader = topics.reader_of(name)
            if reader is not None:
                readers.setdefault(reader, []).append(name)
        finished: dict[TopicPartition, Progress] = {}
        for group, own in readers.items():
            finished.update(await self._catalogue.committed(group, own))
        asked = [where for name in names for where in self._partitions(name)]
        firsts, ends = await self._bounds(asked)
        found: dict[str, dict[TopicPartition, _Window]] = {}
        for where in asked:
            progress = finished.get(where, _NOTHING)
            window = _Window(max(progress.low, firsts[where]), ends[where], progress)
            if window.unfinished:
                found.setdefault(where.topic, {})[where] = window
        return found

    async def _bounds(self, asked: list[TopicPartition]) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """The first offset that each partition has, and the one after its last."""
        outer = {self._outer(where): where for where in asked}
        if not outer:
            return {}, {}
        try:
            firsts = await self._consumer.beginning_offsets(list(outer))
            ends = await self._consumer.end_offsets(list(outer))
        except _FAILURES as error:
            raise faults.unreachable(self._servers, error) from error
        return ({outer[each]: offset for each, offset in of.items()} for of in (firsts, ends))  # type: ignore[return-value]

    async def _since(self, asked: list[TopicPartition], since: float) -> dict[TopicPartition, _Window]:
        firsts, ends = await self._bounds(asked)
        times = {self._outer(where): max(0, int(since * 1000)) for where in asked}
        try:
            starts = await self._consumer.offsets_for_times(times) if times else {}
        except _FAILURES as error:
            raise faults.unreachable(self._servers, error) from error
        found = {}
        for where in asked:
            start = starts[self._outer(where)]
            found[where] = _Window(ends[where] if start is None else max(start.offset, firsts[where]), ends[where])
        return found

    def _outer(self, where: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._catalogue.outer(where.topic), where.partition)

    async def _read(
        self, topic: str, windows: Mapping[TopicPartition, _Window], is_wanted: Judge
    ) -> AsyncIterator[Record]:
        """The records of one topic in these windows that are not finished."""
        reading = {self._outer(where): window for where, window in windows.items() if window.start < window.end}
        left = {where: window.quota for where, window in reading.items()}
        try:
            self._consumer.assign(list(reading))
            for where, window in reading.items():
                self._consumer.seek(where, window.start)
            while reading:
                for where, fetched in (await self._fetch(reading)).items():
                    window = reading[where]
                    for record in fetched:
                        if record.offset >= window.end or left[where] == 0:
                            break
                        if not window.progress.includes(record.offset) and is_wanted(record):
                            left[where] = None if (rest := left[where]) is None else rest - 1
                            yield decode(topic, record)
                    if left[where] == 0 or await self._consumer.position(where) >= window.end:
                        del reading[where]
                        self._consumer.pause(where)
        except _FAILURES as error:
            raise faults.unreachable(self._servers, error) from error

    async def _fetch(self, reading: Iterable[KafkaPartition]) -> dict[KafkaPartition, list[ConsumerRecord]]:
        loop = asyncio.get_running_loop()
        silent_until = loop.time() + SILENCE_SECONDS
        while True:
            fetched: dict[KafkaPartition, list[ConsumerRecord]] = await self._consumer.getmany(
                *reading, timeout_ms=POLL_MILLISECONDS, max_records=POLL_RECORDS
            )
            if fetched:
                return fetched
            if loop.time() > silent_until:
                where = next(iter(reading))
                raise LogUnavailable(
                    f"Kafka at {self._servers} does not give the records of {where.topic}, partition {where.partition}: "
                    "check that its leader is up"
                )


def _rank(topic: str) -> tuple[int, str]:
    """The place of a topic on the way of a message."""
    base = topics.base_of(topic)
    kind = base if base in _ORDER else base.partition(".")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), topic)


def _shares(windows: Mapping[TopicPartition, _Window], limit: int, total: int) -> dict[TopicPartition, _Window]:
    """The same windows, each with its part of `limit`; at least one record of each."""
    return {
        where: _Window(window.start, window.end, window.progress, max(1, limit * window.unfinished // total))
        for where, window in windows.items()
    }
