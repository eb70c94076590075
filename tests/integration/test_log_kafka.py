"""The Kafka log passes the log's contract, against a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import LogConfig
from postrail.log.interface import Log, Rebalance, TopicPartition
from postrail.log.kafka import KafkaLog, open_kafka_log
from postrail.log.kafka.consumer import KafkaConsumer
from postrail.log.progress import Progress
from tests.contract.log_contract import LogContract
from tests.support.kafka import KafkaBroker
from tests.support.kafka_log import kafka_config


class Cluster:
    """A LogFactory over topics of a test's own."""

    def __init__(self, broker: KafkaBroker, prefix: str) -> None:
        self._broker, self._prefix = broker, prefix
        self._joined: set[tuple[str, str]] = set()
        self.opened: list[KafkaLog] = []

    async def open(self, *, partitions: int = 1, keep_consumed_seconds: float = 60.0) -> Log:
        kafka = kafka_config(self._broker.bootstrap, self._prefix, partitions=partitions)
        log = await open_kafka_log(LogConfig(kind="kafka", kafka=kafka))
        self.opened.append(log)
        join = log.consumer

        async def consumer(topics: Sequence[str], group: str, **callbacks: Rebalance | None) -> KafkaConsumer:
            self._joined |= {(group, topic) for topic in topics}
            return await join(topics, group, **callbacks)

        log.consumer = consumer  # type: ignore[method-assign]
        return log

    async def let_trim(self, log: Log) -> None:
        """Kafka trims by age alone: make everything so old that every group has finished, and nothing else."""
        lows: dict[TopicPartition, int] = {}
        for group, topic in self._joined:
            finished = await log.committed(group, [topic])
            where = TopicPartition(topic, 0)
            low = finished.get(where, Progress(0)).low
            lows[where] = min(lows.get(where, low), low)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._broker.bootstrap)
        await admin.start()
        try:
            old = {KafkaPartition(self._prefix + topic, number): low for (topic, number), low in lows.items() if low}
            if old:
                await admin.delete_records({where: RecordsToDelete(before_offset=low) for where, low in old.items()})
        finally:
            await admin.close()


class TestKafkaLog(LogContract):
    @pytest.fixture
    async def log_factory(self, kafka_broker: KafkaBroker, kafka_prefix: str) -> AsyncIterator[Cluster]:
        cluster = Cluster(kafka_broker, kafka_prefix)
        yield cluster
        for log in cluster.opened:
            await log.close()
