"""Reads the end of single partitions, outside of any group: for a new owner that looks at recent outcomes.

Owns a client of its own, opened when it is first needed. One partition is read at a time.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import LogUnavailable, Record, TopicPartition
from postrail.log.kafka import faults
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.records import decode

REQUEST_TIMEOUT_SECONDS = 10.0
SILENCE_SECONDS = 10.0
POLL_MILLISECONDS = 500


class Reader:
    """Opens nothing until `tail`."""

    def __init__(self, config: KafkaConfig, connection: Connection) -> None:
        self._config, self._connection = config, connection
        self._lock = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def tail(self, where: TopicPartition, newest: int, since: int | None) -> list[Record]:
        """As `Log.tail`, for a partition that exists."""
        async with self._lock:
            try:
                return await self._tail(where, newest, since)
            except (errors.KafkaError, OSError, TimeoutError) as error:
                await self._close()
                raise faults.unreachable(self._connection.servers, error) from error

    async def _tail(self, where: TopicPartition, newest: int, since: int | None) -> list[Record]:
        consumer = await self._open()
        outer = KafkaPartition(self._config.topic_prefix + where.topic, where.partition)
        consumer.assign([outer])
        end = (await consumer.end_offsets([outer]))[outer]
        first = (await consumer.beginning_offsets([outer]))[outer]
        start = max(first, end - newest if since is None else min(since, end - newest))
        if start >= end:
            return []
        consumer.seek(outer, start)
        found: list[Record] = []
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        while await consumer.position(outer) < end:
            fetched = await consumer.getmany(outer, timeout_ms=POLL_MILLISECONDS)
            found += [decode(where.topic, record) for record in fetched.get(outer, ()) if record.offset < end]
            if fetched:
                heard_at = loop.time()
            elif loop.time() - heard_at > SILENCE_SECONDS:
                raise LogUnavailable(f"Kafka at {self._connection.servers} does not give the records of {outer.topic}")
        return found

    async def _open(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._connection.options("reader", REQUEST_TIMEOUT_SECONDS),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def close(self) -> None:
        """Disconnect."""
        async with self._lock:
            await self._close()
