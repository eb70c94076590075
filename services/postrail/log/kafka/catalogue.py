"""Which topics the cluster has, and with how many partitions; what groups have committed, seen from outside of them.

Owns the client for questions that belong to no producer or consumer. Topics are never created by asking for them: all topics
are listed, because a broker may create what is asked for by name, with settings that lose mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import KafkaConfig
from postrail.core.topic_specs import partitions_of
from postrail.log.interface import LogUnavailable, TopicPartition
from postrail.log.kafka import faults
from postrail.log.kafka.connection import Connection
from postrail.log.progress import METADATA_LIMIT_BYTES, Progress
from postrail.shell import logs

LOG = logs.logger("log")

REQUEST_TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.05
RETRY_SECONDS = 0.2


class Catalogue:
    """Topics by name without prefix. Names of groups get the prefix, too."""

    def __init__(self, config: KafkaConfig, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._admin = AIOKafkaAdminClient(**connection.options("control", REQUEST_TIMEOUT_SECONDS))
        self._creating = asyncio.Lock()
        self.partitions: dict[str, int] = {}
        """How many each known topic has."""

    def outer(self, name: str) -> str:
        """A topic's or group's name as the brokers know it."""
        return self._config.topic_prefix + name

    async def open(self) -> None:
        """Connect and list the topics.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            await self._admin.start()
        except (errors.KafkaError, OSError, TimeoutError) as error:
            raise faults.unreachable(self._connection.servers, error) from error
        await self.refresh()

    async def refresh(self) -> None:
        """List the topics again.

        Raises:
            LogUnavailable: no broker answers.
        """
        try:
            listed: list[dict[str, Any]] = await self._admin.describe_topics()
        except (errors.KafkaError, OSError, TimeoutError, AttributeError) as error:
            raise faults.unreachable(self._connection.servers, error) from error
        prefix = self._config.topic_prefix
        for topic in listed:
            name = topic["topic"]
            if name.startswith(prefix) and topic["error_code"] == 0 and not topic["is_internal"]:
                self.partitions.setdefault(name[len(prefix) :], len(topic["partitions"]))

    async def ensure(self, topics: Collection[str]) -> None:
        """See that these topics exist; create those that don't, where the configuration says so.

        Raises:
            LogUnavailable: one does not exist; or no broker answers.
        """
        if all(topic in self.partitions for topic in topics):
            return
        async with self._creating:
            await self.refresh()
            missing = [topic for topic in dict.fromkeys(topics) if topic not in self.partitions]
            if missing and not self._config.create_topics:
                raise faults.missing_topic(self.outer(missing[0]))
            if missing:
                await self._create(missing)

    async def _create(self, topics: Sequence[str]) -> None:
        config = self._config
        settings = {
            "min.insync.replicas": str(config.min_insync_replicas),
            "max.message.bytes": str(config.max_record_bytes),
        }
        wanted = [
            NewTopic(
                self.outer(topic),
                partitions_of(config, topic),
                config.replication_factor,
                topic_configs=settings,
            )
            for topic in topics
        ]
        try:
            response = await self._admin.create_topics(wanted)
        except (errors.KafkaError, OSError, TimeoutError) as error:
            raise faults.unreachable(self._connection.servers, error) from error
        for name, code, *text in response.topic_errors:
            if errors.for_code(code) not in (errors.NoError, errors.TopicAlreadyExistsError):
                raise LogUnavailable(
                    f"the topic {name} cannot be created: {text[0] if text else errors.for_code(code)}"
                )
        for _ in range(round(REQUEST_TIMEOUT_SECONDS / POLL_SECONDS)):
            await self.refresh()
            if all(topic in self.partitions for topic in topics):
                return
            await asyncio.sleep(POLL_SECONDS)
        raise LogUnavailable(f"the topics {', '.join(topics)} were created, but the brokers don't show them")

    async def reachable(self, group: str) -> bool:
        """Whether the cluster answers and has a coordinator for the group: whoever makes no progress now is stuck itself."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                await self._admin.find_coordinator(self.outer(group))
        except (errors.KafkaError, OSError, TimeoutError, AssertionError):
            return False
        return True

    async def committed(self, group: str, topics: Iterable[str]) -> Mapping[TopicPartition, Progress]:
        """What a group has committed.

        Raises:
            LogUnavailable: the brokers don't answer.
        """
        asked = [
            KafkaPartition(self.outer(topic), number)
            for topic in topics
            for number in range(self.partitions.get(topic, 0))
        ]
        if not asked:
            return {}
        length = len(self._config.topic_prefix)
        return {
            TopicPartition(where.topic[length:], where.partition): parse_progress(group, *value)
            for where, value in (await self._offsets(group, asked)).items()
            if value.offset >= 0
        }

    async def _offsets(self, group: str, asked: list[KafkaPartition]) -> dict[KafkaPartition, OffsetAndMetadata]:
        deadline = asyncio.get_running_loop().time() + REQUEST_TIMEOUT_SECONDS
        while True:
            try:
                found: dict[KafkaPartition, OffsetAndMetadata] = await self._admin.list_consumer_group_offsets(
                    self.outer(group), partitions=asked
                )
            except (errors.KafkaError, OSError, TimeoutError, AttributeError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise faults.unreachable(self._connection.servers, error) from error
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return found

    async def commit_from_outside(self, group: str, commits: Mapping[TopicPartition, Progress]) -> bool:
        """Commit for a group that has no member; False when it has one, or the brokers refuse.

        Raises:
            LogUnavailable: the brokers don't answer.
        """
        by_topic: dict[str, list[tuple[int, int, str]]] = {}
        for where, progress in commits.items():
            by_topic.setdefault(self.outer(where.topic), []).append(
                (where.partition, progress.low, metadata_of(progress))
            )
        request = OffsetCommitRequest(
            self.outer(group), -1, "", OffsetCommitRequest.DEFAULT_RETENTION_TIME, list(by_topic.items())
        )
        try:
            node = await self._admin.find_coordinator(self.outer(group))
            response = await self._admin._client.send(node, request)  # no public way to commit
        except (errors.KafkaError, OSError, TimeoutError) as error:
            raise faults.unreachable(self._connection.servers, error) from error
        return all(code == 0 for _, partitions in response.topics for _, code in partitions)

    async def close(self) -> None:
        """Disconnect."""
        await self._admin.close()


def metadata_of(progress: Progress) -> str:
    """What is committed beside the watermark. Too large a set is left out: its records are read again."""
    metadata = progress.metadata()
    if len(metadata) <= METADATA_LIMIT_BYTES:
        return metadata
    LOG.warning("commit_metadata_too_large", size_bytes=len(metadata), low=progress.low)
    return ""


def parse_progress(group: str, low: int, metadata: str | None) -> Progress:
    """A committed offset with its metadata; metadata that somebody else wrote counts as none."""
    try:
        return Progress.parse(low, metadata or "")
    except ValueError as error:
        LOG.error("commit_metadata_unreadable", group=group, problem=str(error))
        return Progress(low)
