"""The log in a Kafka cluster: what services see, composed of its parts.

Owns the order of `transact` (appends acknowledged, then commits), and which consumer commits what. It is not atomic: a crash
between the two repeats records, which are recognised by id downstream. Neighbours: `producer`, `consumer`, `catalogue`,
`reader`, `watchdog`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from postrail.core.log_config import KafkaConfig, LogConfig
from postrail.log.interface import Append, Commit, LogUnavailable, Position, Rebalance, Record, TopicPartition
from postrail.log.kafka import metrics
from postrail.log.kafka.catalogue import Catalogue
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.consumer import KafkaConsumer
from postrail.log.kafka.producer import Producer
from postrail.log.kafka.reader import Reader
from postrail.log.kafka.watchdog import Fatal, Watchdog, end_process
from postrail.log.progress import Progress
from postrail.shell import logs

LOG = logs.logger("log")


async def open_kafka_log(config: LogConfig, *, instance: str | None = None, fatal: Fatal = end_process) -> KafkaLog:
    """Connect to the cluster that `config.kafka` describes.

    Args:
        instance: this process's name among the members of its groups, where the configuration gives none.
        fatal: called when the client is stuck; must not return in production.
    Raises:
        LogUnavailable: no broker answers, or it does not let us in; the text says what is wrong.
    """
    assert config.kafka is not None, "the configuration is validated"
    log = KafkaLog(config.kafka, config.kafka.instance or instance or _pod(), fatal)
    try:
        await log.open()
    except BaseException:
        await log.close()
        raise
    return log


def _pod() -> str | None:
    """The pod's name, which no other process has; elsewhere several processes may share a host's name."""
    return os.environ.get("HOSTNAME") if "KUBERNETES_SERVICE_HOST" in os.environ else None


class KafkaLog:
    """Made by `open_kafka_log`. All methods are for the event loop's thread."""

    def __init__(self, config: KafkaConfig, instance: str | None, fatal: Fatal) -> None:
        self._config, self._instance = config, instance
        self._connection = Connection(config, instance)
        self._catalogue = Catalogue(config, self._connection)
        self._producer = Producer(config, self._connection, self._catalogue)
        self._reader = Reader(config, self._connection)
        self._consumers: dict[str, list[KafkaConsumer]] = {}
        self._watchdog = Watchdog(config.stuck_seconds, self._all, self._catalogue.reachable, fatal, self._measure)
        self._closed: str | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: no broker answers.
        """
        await self._catalogue.open()
        await self._producer.open()
        self._watchdog.start()

    @property
    def is_atomic(self) -> bool:
        """As `Log.is_atomic`."""
        return False

    @property
    def shares_bodies(self) -> bool:
        """As `Log.shares_bodies`: each record carries its own."""
        return False

    def problem(self) -> str | None:
        """As `Log.problem`."""
        found = [self._closed, self._producer.problem(), *(consumer.problem() for consumer in self._all())]
        return next(filter(None, found), None)

    def _all(self) -> list[KafkaConsumer]:
        return [consumer for consumers in self._consumers.values() for consumer in consumers]

    def _measure(self) -> None:
        consumers = self._all()
        metrics.FETCHED_BYTES.set(sum(consumer.fetched_bytes() for consumer in consumers))
        leases = [consumer.lease_seconds() for consumer in consumers if consumer.assigned]
        if leases:
            metrics.LEASE_SECONDS.set(max(0.0, min(leases)))

    def _check_open(self) -> None:
        if self._closed is not None:
            raise LogUnavailable(self._closed)

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        """As `Log.append`."""
        self._check_open()
        return await self._producer.append(appends)

    async def transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        """As `Log.transact`: commits come a little later, and what cannot be committed fails nothing: its appends are there."""
        self._check_open()
        if appends:
            await self._producer.append(appends)
        if commits:
            groups: dict[str, dict[TopicPartition, Progress]] = {}
            for group, where, progress in commits:
                groups.setdefault(group, {})[where] = progress
            for group, finished in groups.items():
                await self._commit(group, finished)

    async def _commit(self, group: str, finished: dict[TopicPartition, Progress]) -> None:
        members = self._consumers.get(group)
        if members is None:
            if not await self._catalogue.commit_from_outside(group, finished):
                metrics.COMMITS_DROPPED.labels("lost").inc(len(finished))
                LOG.warning("commit_dropped", group=group, problem="this process is not in the group, but others are")
        elif not members:
            metrics.COMMITS_DROPPED.labels("lost").inc(len(finished))
            LOG.warning("commit_dropped", group=group, problem="this process has left the group")
        elif len(members) == 1:
            await members[0].commit(finished)
        else:
            for member in members:
                mine = {where: finished.pop(where) for where in list(finished) if member.owns(where)}
                if member is members[-1]:
                    mine |= finished  # nobody's: it says so
                if mine:
                    await member.commit(mine)

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> KafkaConsumer:
        """As `Log.consumer`; topics must exist unless the configuration lets them be created."""
        self._check_open()
        await self._catalogue.ensure(topics)
        members = self._consumers.setdefault(group, [])
        instance = self._instance
        if instance is not None and members:
            instance = f"{instance}-{len(members) + 1}"
        consumer = KafkaConsumer(
            self._config,
            self._connection,
            self._catalogue,
            topics,
            group,
            instance,
            on_assigned,
            on_revoked,
            self._left,
        )
        members.append(consumer)
        await consumer.start()
        return consumer

    def _left(self, consumer: KafkaConsumer) -> None:
        self._consumers[consumer.group].remove(consumer)

    def topic_names(self) -> Collection[str]:
        """As `Log.topic_names`: those of the cluster with our prefix, as of the start, and those used since."""
        return self._catalogue.partitions.keys()

    async def committed(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, Progress]:
        """As `Log.committed`."""
        self._check_open()
        for member in self._consumers.get(group, ()):
            await member.flush()
        return await self._catalogue.committed(group, topics)

    async def tail(self, topic: str, partition: int, *, newest: int, since: int | None = None) -> list[Record]:
        """As `Log.tail`."""
        self._check_open()
        if partition >= self._catalogue.partitions.get(topic, 0):
            return []
        return await self._reader.tail(TopicPartition(topic, partition), newest, since)

    async def close(self) -> None:
        """As `Log.close`. Consumers that are still there leave their groups; their `on_revoked` is not called."""
        if self._closed is not None:
            return
        self._closed = f"the log at {self._connection.servers} is closed"
        await self._watchdog.close()
        for consumer in self._all():
            await consumer.close(self._closed, call_back=False)
        await self._producer.close()
        await self._reader.close()
        await self._catalogue.close()
