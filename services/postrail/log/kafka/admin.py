"""The cluster's topics: observed, made as the configuration wants them, and checked before a service starts.

Owns the requests; what is wrong and what to do is decided by `postrail.core.topic_plan`. It never deletes a topic and never
touches one that the configuration does not name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from postrail.core.config import Config
from postrail.core.log_config import KafkaConfig
from postrail.core.topic_plan import (
    Action,
    AlterSettings,
    Create,
    Observed,
    ObservedTopic,
    Plan,
    Problem,
    RaisePartitions,
    Severity,
    plan,
)
from postrail.core.topic_specs import specs
from postrail.log.interface import LogError
from postrail.log.kafka import faults
from postrail.log.kafka.connection import Connection

REQUEST_TIMEOUT_SECONDS = 15.0
_SHOWN_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.1
_OF_TOPIC = 1
"""A setting's source: the topic itself, rather than the broker or a default."""
_UNANSWERED = (errors.KafkaError, OSError, TimeoutError, AttributeError)
"""What aiokafka raises where no broker answers; the last one where it knows no broker at all."""


class TopicsUnfit(LogError):
    """The topics could lose mail, or are missing; the text has one problem a line, each with what repairs it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class TopicAdmin:
    """A connection to the cluster for looking at topics and changing them; made by `open_topic_admin`."""

    def __init__(self, config: Config, kafka: KafkaConfig, client: AIOKafkaAdminClient, servers: str) -> None:
        self._config = config
        self._kafka = kafka
        self._client = client
        self._servers = servers

    async def observe(self) -> Observed:
        """What the cluster has of the topics with our prefix.

        Raises:
            LogUnavailable: no broker answers, or they do not allow this user to look.
        """
        try:
            cluster = await self._client.describe_cluster()
            listed = [topic for topic in await self._client.describe_topics() if self._is_ours(topic)]
            wanted = {self._kafka.topic_prefix + spec.name for spec in specs(self._config)}
            settings = await self._settings([topic["topic"] for topic in listed if topic["topic"] in wanted])
            brokers = [broker["node_id"] for broker in cluster["brokers"]]
            kept = await self._offsets_kept_seconds(brokers[0]) if brokers else None
        except _UNANSWERED as error:
            raise faults.unreachable(self._servers, error) from error
        found = {
            topic["topic"][len(self._kafka.topic_prefix) :]: ObservedTopic(
                len(topic["partitions"]),
                min((len(partition["replicas"]) for partition in topic["partitions"]), default=0),
                {name: value for name, (value, _) in settings.get(topic["topic"], {}).items()},
            )
            for topic in listed
        }
        return Observed(found, len(brokers), kept)

    async def apply(self, actions: Iterable[Action]) -> None:
        """Carry the actions out, and wait until the brokers show it.

        Raises:
            LogUnavailable: no broker answers; what was done so far stays done.
            TopicsUnfit: the brokers refuse; the text says which topic and why.
        """
        actions = list(actions)
        try:
            await self._create([action for action in actions if isinstance(action, Create)])
            for action in actions:
                if isinstance(action, AlterSettings):
                    await self._alter(action)
                elif isinstance(action, RaisePartitions):
                    await self._raise(action)
            await self._wait_shown(actions)
        except _UNANSWERED as error:
            raise faults.unreachable(self._servers, error) from error

    def _is_ours(self, topic: Mapping[str, Any]) -> bool:
        return not topic["error_code"] and str(topic["topic"]).startswith(self._kafka.topic_prefix)

    async def _settings(self, names: Sequence[str]) -> dict[str, dict[str, tuple[str, int]]]:
        """The settings in force of each topic: value and source.

        The broker that is asked may not know yet what another one has created: it is asked again.
        """
        found: dict[str, dict[str, tuple[str, int]]] = {}
        async with asyncio.timeout(_SHOWN_TIMEOUT_SECONDS):
            while missing := [name for name in names if name not in found]:
                resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in missing]
                for response in await self._client.describe_configs(resources):
                    for code, text, _, name, entries in response.resources:
                        if not code:
                            found[name] = {entry[0]: (entry[1] or "", entry[3]) for entry in entries}
                        elif errors.for_code(code) is not errors.UnknownTopicOrPartitionError:
                            raise faults.unreachable(
                                self._servers, f"the settings of {name} are not told: {_reason(code, text)}"
                            )
                if len(found) < len(names):
                    await asyncio.sleep(_POLL_SECONDS)
        return found

    async def _offsets_kept_seconds(self, broker: int) -> float | None:
        """How long the brokers keep a group's offsets; None where this user may not ask."""
        asked = {"offsets.retention.minutes": None}
        resource = ConfigResource(ConfigResourceType.BROKER, str(broker), asked)
        for response in await self._client.describe_configs([resource]):
            for code, _, _, _, entries in response.resources:
                for entry in () if code else entries:
                    return float(entry[1]) * 60
        return None

    async def _create(self, creations: Sequence[Create]) -> None:
        if not creations:
            return
        topics = [
            NewTopic(
                self._kafka.topic_prefix + action.spec.name,
                action.spec.partitions,
                action.spec.replication_factor,
                topic_configs=action.spec.settings,
            )
            for action in creations
        ]
        response = await self._client.create_topics(topics)
        for name, code, *text in response.topic_errors:
            if errors.for_code(code) not in {errors.NoError, errors.TopicAlreadyExistsError}:
                raise _refused(name, "created", code, *text)

    async def _alter(self, action: AlterSettings) -> None:
        """Write the topic's own settings: what was set before stays, because the request replaces them all."""
        name = self._kafka.topic_prefix + action.topic
        own = {
            key: value for key, (value, source) in (await self._settings([name]))[name].items() if source == _OF_TOPIC
        }
        resource = ConfigResource(ConfigResourceType.TOPIC, name, own | dict(action.after))
        for response in await self._client.alter_configs([resource]):
            for code, text, *_ in response.resources:
                if code:
                    raise _refused(name, "changed", code, text)

    async def _raise(self, action: RaisePartitions) -> None:
        name = self._kafka.topic_prefix + action.topic
        try:
            await self._client.create_partitions({name: NewPartitions(action.after)})
        except errors.BrokerResponseError as error:
            raise _refused(name, "given more partitions", error.errno, str(error)) from error

    async def _wait_shown(self, actions: Sequence[Action]) -> None:
        """Brokers learn of changes a moment after they are made."""
        async with asyncio.timeout(_SHOWN_TIMEOUT_SECONDS):
            while not _shown(actions, await self.observe()):  # noqa: ASYNC110  # it is asked, it does not tell
                await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def open_topic_admin(config: Config) -> AsyncIterator[TopicAdmin]:
    """Connect to the cluster of a configuration whose log is Kafka.

    Raises:
        LogUnavailable: no broker answers, or a certificate, key or password cannot be used.
    """
    kafka = config.log.kafka
    assert kafka is not None, "only a Kafka log has topics to look at"
    connection = Connection(kafka, kafka.instance)
    client = AIOKafkaAdminClient(**connection.options("topics", REQUEST_TIMEOUT_SECONDS))
    try:
        try:
            await client.start()
        except _UNANSWERED as error:
            raise faults.unreachable(connection.servers, error) from error
        yield TopicAdmin(config, kafka, client, connection.servers)
    finally:
        await client.close()


async def check_topics(config: Config) -> Plan:
    """See that no topic could lose mail; for a service before it starts.

    With `log.kafka.create_topics` the topics that are missing are created first.

    Raises:
        TopicsUnfit: at least one could, or is missing: names each, what is wrong, and the command that repairs it.
        LogUnavailable: no broker answers.
    """
    async with open_topic_admin(config) as admin:
        found = plan(config, await admin.observe())
        missing = [action for action in found.actions if isinstance(action, Create)]
        if missing and config.log.kafka is not None and config.log.kafka.create_topics:
            await admin.apply(missing)
            found = plan(config, await admin.observe())
    if found.dangers:
        raise TopicsUnfit(found.dangers)
    return found


def _shown(actions: Iterable[Action], observed: Observed) -> bool:
    for action in actions:
        topic = observed.topics.get(action.spec.name if isinstance(action, Create) else action.topic)
        if topic is None or not _has(topic, action):
            return False
    return True


def _has(topic: ObservedTopic, action: Action) -> bool:
    match action:
        case RaisePartitions():
            return topic.partitions >= action.after
        case AlterSettings():
            return all(topic.settings.get(name) == value for name, value in action.after.items())
        case Create():
            return topic.replicas > 0


def _refused(topic: str, what: str, code: int, text: str | None = None) -> TopicsUnfit:
    said = f"it cannot be {what}: {_reason(code, text)}"
    return TopicsUnfit([Problem(topic, Severity.DANGER, said, "correct that, then run the command again")])


def _reason(code: int, text: str | None) -> str:
    return text or str(errors.for_code(code).__name__)
