"""Every topic of a configuration as it must be on Kafka: partitions, copies, how long it is kept, and what keeps mail safe.

Pure: made of the configuration alone. What differs on a cluster, and what to do about it, is `topic_plan`; docs/topics.md is
generated from here. The embedded log needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from postrail.core import topics
from postrail.core.config import Config
from postrail.core.log_config import DAY_SECONDS, KafkaConfig

MARGIN_SECONDS = 3 * DAY_SECONDS
"""How much longer than any message lives its topics are kept."""
UNLIMITED = "-1"


class TopicKind(StrEnum):
    """What a topic holds, which decides how long it is kept."""

    MAIL = "mail"
    """Messages under way. Kept longer than any of them lives."""
    OUTCOMES = "outcomes"
    """What a sender has finished. Kept as mail, or finished mail would be sent again."""
    EVENTS = "events"
    """What happened, for people."""
    DEAD_LETTERS = "dead letters"
    """Mail that waits for a person. Kept until somebody deletes it."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. `name` is without the prefix."""

    name: str
    kind: TopicKind
    partitions: int
    replication_factor: int
    min_insync_replicas: int
    retention_seconds: float | None
    """None: without end."""
    needed_seconds: float | None
    """What is kept for a shorter time than this loses mail, or sends it twice. 0: nothing is lost; None: without end."""
    max_message_bytes: int

    @property
    def settings(self) -> dict[str, str]:
        """Kafka's settings of the topic, by Kafka's names."""
        kept = UNLIMITED if self.retention_seconds is None else str(round(self.retention_seconds * 1000))
        return {
            "cleanup.policy": "delete",
            "retention.ms": kept,
            "retention.bytes": UNLIMITED,
            "min.insync.replicas": str(self.min_insync_replicas),
            "unclean.leader.election.enable": "false",
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        }


WHY: Mapping[str, str] = {
    "cleanup.policy": "compaction keeps one record of each key, and deletes other mail",
    "retention.ms": "the longest lifetime of any stream and three days: what is under way is never deleted",
    "retention.bytes": "a full topic must not delete mail",
    "min.insync.replicas": "a record counts as stored when this many brokers have it",
    "unclean.leader.election.enable": "a broker that lacks records must not become the leader and forget them",
    "max.message.bytes": "the largest record, body included (`log.kafka.max_record_bytes`)",
    "message.timestamp.type": "the broker's clock counts: a process with a wrong clock cannot make its mail look old",
}
"""Why each setting of a mail topic is what it is."""


@dataclass(frozen=True, slots=True)
class TopicFamily:
    """Topics that hold the same kind of record: one, or one for each pool, destination group, tier."""

    pattern: str
    kind: TopicKind
    laned: bool
    key: str
    record: str
    written_by: str
    read_by: str
    bases: Callable[[Config], Iterable[str]]
    """The base names in a configuration."""

    def names(self, config: Config) -> Iterator[str]:
        """The names in a configuration, a laned topic's urgent lane first."""
        for base in self.bases(config):
            yield from topics.lanes(base) if self.laned else (base,)


def _by_sender(name: Callable[[str, str], str]) -> Callable[[Config], Iterable[str]]:
    return lambda config: (name(pool, group) for pool in config.pools for group in config.routing.groups)


def _only(name: str) -> Callable[[Config], Iterable[str]]:
    return lambda _: (name,)


def _tiers(config: Config) -> Iterable[str]:
    return map(topics.deferred, config.delivery.retry.tiers_seconds)


_MESSAGE = "`Message` + body"
_DELIVERY = "`Delivery` + body"

FAMILIES = (
    TopicFamily(
        *("accepted", TopicKind.MAIL, True, "message id", _MESSAGE),
        *("ingress; sender, routing (notifications)", "signing (`signing`)", _only(topics.ACCEPTED)),
    ),
    TopicFamily(
        *("aside", TopicKind.MAIL, False, "message id", _MESSAGE),
        *(
            "signing (many wait for a key)",
            "signing (`signing`), each record once it is five minutes old",
            _only(topics.ASIDE),
        ),
    ),
    TopicFamily(
        *("signed", TopicKind.MAIL, True, "message id", _MESSAGE),
        *("signing", "routing (`routing`)", _only(topics.SIGNED)),
    ),
    TopicFamily(
        *("outbound.<pool>.<group>", TopicKind.MAIL, True, "`source-ip|site`", _DELIVERY),
        *("routing", "sender (`sender.<pool>.<group>`)", _by_sender(topics.outbound)),
    ),
    TopicFamily(
        *("outcomes.<pool>.<group>", TopicKind.OUTCOMES, False, "`source-ip|site`", "`Finished`"),
        *("sender, where the log is not atomic", "the partition's next owner", _by_sender(topics.outcomes)),
    ),
    TopicFamily(
        *("deferred.<seconds>s", TopicKind.MAIL, False, "message id", "`Deferred` + body"),
        *("sender, routing", "scheduler (`scheduler`), in due order", _tiers),
    ),
    TopicFamily(
        *("due", TopicKind.MAIL, True, "message id", _DELIVERY),
        *("scheduler", "routing (`routing`)", _only(topics.DUE)),
    ),
    TopicFamily(
        *("events", TopicKind.EVENTS, False, "message id", "`Event`"),
        *("ingress, routing, sender", "`postrail trace`; reporting, later", _only(topics.EVENTS)),
    ),
    TopicFamily(
        *("dead-letters", TopicKind.DEAD_LETTERS, False, "the record's", "`DeadLetter` + body"),
        *("signing, routing, sender, scheduler", "`postrail dead-letters` (`reinjection`)", _only(topics.DEAD_LETTERS)),
    ),
)
"""Every kind of topic, in the order in which mail passes through them."""


def specs(config: Config) -> list[TopicSpec]:
    """Every topic of a configuration with `log.kafka`, in the order in which mail passes through them."""
    kafka = config.log.kafka
    assert kafka is not None, "only a Kafka log has topics to prepare"
    lives = max((stream.lifetime_seconds for stream in config.streams.values()), default=0.0) + MARGIN_SECONDS
    kept: dict[TopicKind, tuple[float | None, float | None]] = {
        TopicKind.MAIL: (max(config.log.retention_seconds, lives), lives),
        TopicKind.OUTCOMES: (max(config.log.retention_seconds, lives), lives),
        TopicKind.EVENTS: (config.log.keep_events_seconds, 0.0),
        TopicKind.DEAD_LETTERS: (None, None),
    }
    return [
        TopicSpec(
            name,
            family.kind,
            partitions_of(kafka, name),
            kafka.replication_factor,
            kafka.min_insync_replicas,
            *kept[family.kind],
            kafka.max_record_bytes,
        )
        for family in FAMILIES
        for name in family.names(config)
    ]


def partitions_of(kafka: KafkaConfig, topic: str) -> int:
    """How many partitions the configuration gives a topic (by its name without prefix).

    `topic_partitions` names base topics, without lane: one sender must own a key in both lanes of its outbound topic and in
    its outcomes, so that all three have as many.
    """
    return kafka.topic_partitions.get(topics.owner_of(topic), kafka.partitions)
