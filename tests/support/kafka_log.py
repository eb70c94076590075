"""The Kafka log as tests open it: production's settings, on one broker, and quick to notice what is gone.

Neighbours: `kafka` (the brokers).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from postrail.core.log_config import KafkaConfig, LogConfig
from postrail.log.kafka import KafkaLog, open_kafka_log
from postrail.log.kafka.watchdog import Fatal, end_process


def kafka_config(bootstrap: str, prefix: str, **changes: object) -> KafkaConfig:
    """Settings for topics of a test's own. The session is as short as the configuration allows."""
    settings: dict[str, object] = {
        "bootstrap_servers": bootstrap.split(","),
        "topic_prefix": prefix,
        "partitions": 1,
        "replication_factor": 1,
        "min_insync_replicas": 1,
        "create_topics": True,
        "session_timeout_seconds": 6,
        "rebalance_timeout_seconds": 20,
    }
    return KafkaConfig.model_validate(settings | changes)


@asynccontextmanager
async def kafka_log(config: KafkaConfig, fatal: Fatal = end_process) -> AsyncIterator[KafkaLog]:
    """A log, closed at the end."""
    log = await open_kafka_log(LogConfig(kind="kafka", kafka=config), fatal=fatal)
    try:
        yield log
    finally:
        await log.close()
