"""What must be done to a cluster's topics, and what is wrong with them: desired and observed in, actions and problems out.

Pure. A danger is what can lose mail, send it twice, or stop all work: services refuse to start. Nothing here ever deletes a
topic, lowers a number of partitions, or raises one unasked: keys would move. Neighbours: `topic_specs` (desired),
`postrail.log.kafka.admin` (observes, applies).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from postrail.core import topics
from postrail.core.config import Config
from postrail.core.topic_specs import UNLIMITED, TopicKind, TopicSpec, specs

APPLY = "postrail topics apply"
RAISE = "postrail topics apply --raise-partitions"


@dataclass(frozen=True, slots=True)
class ObservedTopic:
    """A topic as the cluster has it. `settings` are those in force, wherever they come from."""

    partitions: int
    replicas: int
    """Copies of the partition that has the fewest."""
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Observed:
    """What the cluster has. Names without prefix."""

    topics: Mapping[str, ObservedTopic]
    brokers: int
    offsets_kept_seconds: float | None = None
    """How long the brokers remember what a group without members has finished; None: they don't tell."""


@dataclass(frozen=True, slots=True)
class Create:
    spec: TopicSpec


@dataclass(frozen=True, slots=True)
class RaisePartitions:
    topic: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class AlterSettings:
    topic: str
    before: Mapping[str, str]
    """Of those that change; "" where the cluster does not tell."""
    after: Mapping[str, str]


Action = Create | RaisePartitions | AlterSettings


class Severity(StrEnum):
    DANGER = "danger"
    """Services refuse to start."""
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one topic (its name with the prefix; "" is the cluster), and what repairs it."""

    topic: str
    severity: Severity
    what: str
    repair: str

    def __str__(self) -> str:
        where = f"topic {self.topic}: " if self.topic else ""
        return f"{where}{self.what}; {self.repair}"


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...]
    held_back: tuple[RaisePartitions, ...]
    """What is done only when it is asked for."""
    problems: tuple[Problem, ...]

    @property
    def dangers(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity is Severity.DANGER)


def plan(config: Config, observed: Observed, *, raise_partitions: bool = False) -> Plan:
    """Compare a configuration with what a cluster has.

    Args:
        config: with `log.kafka`.
        raise_partitions: whether topics with too few partitions get more. Their keys move to others then, so that for a
            while two senders may own the same source address and site; asked for by a person, best while no mail is under way.
    """
    actions: list[Action] = []
    raises: list[RaisePartitions] = []
    problems: list[Problem] = list(_of_cluster(config, observed))
    desired = specs(config)
    for spec in desired:
        found = observed.topics.get(spec.name)
        if found is None:
            actions.append(Create(spec))
            problems.append(Problem(spec.name, Severity.DANGER, "it does not exist", _run(APPLY)))
            continue
        problems += _of_topic(spec, found)
        if found.partitions < spec.partitions:
            raises.append(RaisePartitions(spec.name, found.partitions, spec.partitions))
        changed = {name: value for name, value in spec.settings.items() if found.settings.get(name, "") != value}
        if changed:
            before = {name: found.settings.get(name, "") for name in changed}
            actions.append(AlterSettings(spec.name, before, changed))
    problems += _of_partitions(desired, observed.topics)
    problems += _left_over(desired, observed.topics)
    told = tuple(_with_prefix(config, problem) for problem in problems)
    if raise_partitions:
        return Plan((*actions, *raises), (), told)
    return Plan(tuple(actions), tuple(raises), told)


def _with_prefix(config: Config, problem: Problem) -> Problem:
    kafka = config.log.kafka
    return replace(problem, topic=kafka.topic_prefix + problem.topic) if kafka and problem.topic else problem


def _run(command: str) -> str:
    return f"run: {command}"


def _of_topic(spec: TopicSpec, found: ObservedTopic) -> Iterator[Problem]:
    """What is wrong with a topic that exists."""
    danger = Severity.WARNING if spec.kind is TopicKind.EVENTS else Severity.DANGER
    for severity, what in (*_of_deletion(spec, found.settings), *_of_size_and_time(spec, found.settings)):
        yield Problem(spec.name, severity or danger, what, _run(APPLY))
    yield from _of_copies(spec, found, danger)


_What = tuple[Severity | None, str]
"""A severity other than the topic's own, and what is wrong."""


def _of_deletion(spec: TopicSpec, settings: Mapping[str, str]) -> Iterator[_What]:
    kept, needed = _seconds(settings.get("retention.ms", "")), spec.needed_seconds
    mail = "finished mail would be sent again" if spec.kind is TopicKind.OUTCOMES else "mail would be deleted"
    if kept is not None and (needed is None or kept < needed):
        must = "without end" if needed is None else f"{_days(needed)} or more"
        yield None, f"retention.ms keeps records for {_days(kept)}, but they must be kept {must}: {mail} under way"
    elif kept != spec.retention_seconds:
        before = "without end" if kept is None else _days(kept)
        after = "without end" if spec.retention_seconds is None else _days(spec.retention_seconds)
        yield Severity.WARNING, f"records are kept {before}, and the configuration says {after}"
    policy = settings.get("cleanup.policy", "delete")
    if "compact" in policy:
        yield None, f"cleanup.policy is {policy}, but compaction deletes all records of a key but the last"
    size = settings.get("retention.bytes", UNLIMITED)
    if size != UNLIMITED:
        yield None, f"retention.bytes is {size}, but a full topic must not delete mail before its time"


def _of_size_and_time(spec: TopicSpec, settings: Mapping[str, str]) -> Iterator[_What]:
    largest = settings.get("max.message.bytes", "")
    if largest.isdecimal() and int(largest) < spec.max_message_bytes:
        wanted = spec.max_message_bytes
        yield None, f"max.message.bytes is {largest}, but records may have {wanted} bytes: they would be refused"
    stamp = settings.get("message.timestamp.type", "LogAppendTime")
    if stamp != "LogAppendTime":
        clock = "a process with a wrong clock can make its records look old enough to be deleted"
        yield Severity.WARNING, f"message.timestamp.type is {stamp}: {clock}"


def _of_copies(spec: TopicSpec, found: ObservedTopic, danger: Severity) -> Iterator[Problem]:
    in_sync = int(found.settings.get("min.insync.replicas", "1"))
    wanted = max(spec.min_insync_replicas, 2 if found.replicas >= 3 else 1)
    if found.replicas < spec.replication_factor:
        what = f"it has {_copies(found.replicas)}, and log.kafka.replication_factor is {spec.replication_factor}"
        repair = "give it more with Kafka's own kafka-reassign-partitions, or correct the configuration"
        yield Problem(spec.name, danger, what, repair)
    if in_sync > found.replicas:
        what = f"min.insync.replicas is {in_sync}, but it has only {_copies(found.replicas)}: nothing can be stored"
        yield Problem(spec.name, Severity.DANGER, what, _repair_in_sync(spec, found))
    elif in_sync < wanted:
        what = f"min.insync.replicas is {in_sync}, but {wanted} must have a record before it counts as stored"
        yield Problem(spec.name, danger, f"{what}: losing a broker would lose mail", _repair_in_sync(spec, found))
    if found.replicas > 1 and found.settings.get("unclean.leader.election.enable") == "true":
        what = (
            "unclean.leader.election.enable is true: a broker that lacks records may become the leader and forget them"
        )
        yield Problem(spec.name, danger, what, _run(APPLY))


def _repair_in_sync(spec: TopicSpec, found: ObservedTopic) -> str:
    """`apply` writes the configured number; where that is the wrong one the configuration must change first."""
    needed = 2 if found.replicas >= 3 else 1
    if needed <= spec.min_insync_replicas <= found.replicas:
        return _run(APPLY)
    return f"set log.kafka.min_insync_replicas to {needed}, then {_run(APPLY)}"


def _of_partitions(desired: Sequence[TopicSpec], found: Mapping[str, ObservedTopic]) -> Iterator[Problem]:
    """Too few partitions; and topics that one sender reads together with different numbers of them."""
    together: dict[str, dict[str, int]] = {}
    for spec in desired:
        if spec.name not in found:
            continue
        has = found[spec.name].partitions
        owner = topics.owner_of(spec.name)
        if topics.is_outbound(owner):
            together.setdefault(owner, {})[spec.name] = has
        if has < spec.partitions:
            what = f"it has {has} partitions, and the configuration says {spec.partitions}"
            repair = f"keys move when it gets more, so stop the services, let the queue empty, then {_run(RAISE)}"
            yield Problem(spec.name, Severity.WARNING, what, repair)
    for owner, numbers in together.items():
        if len(set(numbers.values())) > 1:
            listed = ", ".join(f"{name} has {number}" for name, number in numbers.items())
            what = f"its topics have different numbers of partitions ({listed}), so no sender owns an address and site alone"
            most = max(numbers.values())
            repair = f"set log.kafka.topic_partitions to {{{owner}: {most}}} or more, then {_run(RAISE)}"
            yield Problem(owner, Severity.DANGER, what, repair)


def _left_over(desired: Iterable[TopicSpec], found: Mapping[str, ObservedTopic]) -> Iterator[Problem]:
    """Outbound topics of pools and groups that are no longer configured: mail in them waits for ever."""
    known = {topics.owner_of(spec.name) for spec in desired}
    for owner in sorted({topics.base_of(name) for name in found if topics.is_outbound(name)} - known):
        what = "no pool and destination group of the configuration has this topic, so no sender reads what is in it"
        repair = "configure them again until it is empty (postrail queue), then delete it"
        yield Problem(owner, Severity.WARNING, what, repair)


def _of_cluster(config: Config, observed: Observed) -> Iterator[Problem]:
    kafka = config.log.kafka
    assert kafka is not None
    if observed.brokers < kafka.replication_factor:
        what = f"the cluster has {observed.brokers} brokers, fewer than log.kafka.replication_factor ({kafka.replication_factor})"
        repair = "start the others; for a single broker set replication_factor and min_insync_replicas to 1"
        yield Problem("", Severity.WARNING, what, repair)
    kept = observed.offsets_kept_seconds
    if kept is not None and kept < config.log.retention_seconds:
        what = (
            f"the brokers forget what a group has finished {_days(kept)} after its last member left (offsets.retention.minutes), "
            f"but mail is kept {_days(config.log.retention_seconds)}: a service that is off for so long reads it all again"
        )
        minutes = -(-int(config.log.retention_seconds) // 60)
        yield Problem("", Severity.WARNING, what, f"set offsets.retention.minutes={minutes} or more on the brokers")
    used = {topics.owner_of(spec.name) for spec in specs(config)}
    for name in sorted(set(kafka.topic_partitions) - used):
        yield Problem(
            "", Severity.WARNING, f"log.kafka.topic_partitions names {name}, which is no topic", "correct the name"
        )


def _seconds(retention_ms: str) -> float | None:
    """`retention.ms` in seconds; None: without end, or not told."""
    return None if retention_ms in {UNLIMITED, ""} else int(retention_ms) / 1000


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.3g} days" if seconds >= 86400 else f"{seconds:g} s"


def _copies(number: int) -> str:
    return "1 copy" if number == 1 else f"{number} copies"
