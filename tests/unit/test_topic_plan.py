"""What a cluster's topics must be like, what is done about those that are not, and what each problem says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postrail.core import topics
from postrail.core.config import Config
from postrail.core.topic_plan import (
    AlterSettings,
    Create,
    Observed,
    ObservedTopic,
    Problem,
    RaisePartitions,
    Severity,
    plan,
)
from postrail.core.topic_specs import TopicKind, specs

DAY = 86400.0
URGENT = "outbound.default.gmail.urgent"


def config(**kafka: object) -> Config:
    servers = {"bootstrap_servers": ["kafka:9092"], **kafka}
    source = {"address": "192.0.2.1", "ehlo": "mail.example.com"}
    return Config.model_validate(
        {
            "hostname": "mail.example.com",
            "data_directory": "/data",
            "pools": {"default": {"sources": [source]}},
            "log": {"kind": "kafka", "kafka": servers},
        }
    )


def as_wanted(wanted: Config) -> Observed:
    """A cluster on which everything is as the configuration says."""
    found = {
        spec.name: ObservedTopic(spec.partitions, spec.replication_factor, spec.settings) for spec in specs(wanted)
    }
    return Observed(found, brokers=3, offsets_kept_seconds=8 * DAY)


def changed(observed: Observed, topic: str, **fields: object) -> Observed:
    """The same with other fields of one topic; settings are given by name with `_` for `.`."""
    now = observed.topics[topic]
    settings = {name.replace("_", "."): str(value) for name, value in fields.items() if "_" in name}
    plain = {name: value for name, value in fields.items() if "_" not in name}
    after = replace(now, settings={**now.settings, **settings}, **plain)  # type: ignore[arg-type]
    return replace(observed, topics={**observed.topics, topic: after})


def the_problem(wanted: Config, observed: Observed) -> Problem:
    (problem,) = plan(wanted, observed).problems
    return problem


def test_nothing_is_done_where_all_is_as_configured() -> None:
    wanted = config()
    found = plan(wanted, as_wanted(wanted))
    assert (found.actions, found.held_back, found.problems) == ((), (), ())


def test_every_topic_is_created_on_an_empty_cluster() -> None:
    wanted = config()
    found = plan(wanted, Observed({}, brokers=3))
    created = [action.spec.name for action in found.actions if isinstance(action, Create)]
    assert created == [spec.name for spec in specs(wanted)]
    assert {problem.topic for problem in found.dangers} == set(created)
    assert {problem.repair for problem in found.dangers} == {"run: postrail topics apply"}


def test_topics_are_those_that_services_read_and_write() -> None:
    names = {spec.name for spec in specs(config())}
    assert names >= {
        *topics.lanes(topics.ACCEPTED),
        topics.ASIDE,
        *topics.lanes(topics.SIGNED),
        *topics.lanes(topics.DUE),
    }
    assert names >= {*topics.lanes(topics.outbound("default", "yahoo")), topics.outcomes("default", "yahoo")}
    assert names >= {topics.deferred(60), topics.deferred(14400), topics.EVENTS, topics.DEAD_LETTERS}


def test_mail_is_kept_three_days_longer_than_the_longest_stream() -> None:
    kept = {spec.kind: spec for spec in specs(config())}
    assert kept[TopicKind.MAIL].settings["retention.ms"] == str(8 * 86400 * 1000)
    assert kept[TopicKind.OUTCOMES].settings["retention.ms"] == str(8 * 86400 * 1000)
    assert kept[TopicKind.EVENTS].settings["retention.ms"] == str(30 * 86400 * 1000)
    assert kept[TopicKind.DEAD_LETTERS].settings["retention.ms"] == "-1"


def test_outcomes_and_both_lanes_of_an_outbound_topic_have_as_many_partitions() -> None:
    wanted = config(topic_partitions={"outbound.default.gmail": 30, "events": 3})
    has = {spec.name: spec.partitions for spec in specs(wanted)}
    assert [has[URGENT], has["outbound.default.gmail.bulk"], has["outcomes.default.gmail"]] == [30, 30, 30]
    assert (has["events"], has["accepted.urgent"]) == (3, 12)


def test_prefix_stands_in_problems() -> None:
    wanted = config(topic_prefix="prod.")
    assert plan(wanted, Observed({}, brokers=3)).dangers[0].topic == "prod.accepted.urgent"


@pytest.mark.parametrize(
    ("topic", "settings", "what"),
    [
        (
            URGENT,
            {"retention_ms": 7 * 86400 * 1000},
            "keeps records for 7 days, but they must be kept 8 days or more: mail would be",
        ),
        ("outcomes.default.gmail", {"retention_ms": 1000}, "finished mail would be sent again"),
        ("dead-letters", {"retention_ms": 86400 * 1000}, "must be kept without end"),
        (URGENT, {"retention_bytes": 10**9}, "retention.bytes is 1000000000, but a full topic must not delete mail"),
        (URGENT, {"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        (URGENT, {"cleanup_policy": "compact,delete"}, "cleanup.policy is compact,delete"),
        (URGENT, {"min_insync_replicas": 1}, "min.insync.replicas is 1, but 2 must have a record"),
        (URGENT, {"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true"),
        (URGENT, {"max_message_bytes": 1000}, "max.message.bytes is 1000, but records may have 2097152 bytes"),
    ],
)
def test_danger_is_named_and_repaired_by_apply(topic: str, settings: dict[str, object], what: str) -> None:
    wanted = config()
    observed = changed(as_wanted(wanted), topic, **settings)
    problem = the_problem(wanted, observed)
    assert problem.severity is Severity.DANGER
    assert (problem.topic, problem.repair) == (topic, "run: postrail topics apply")
    assert what in problem.what
    ((name, value),) = ((name.replace("_", "."), str(value)) for name, value in settings.items())
    (action,) = plan(wanted, observed).actions
    assert isinstance(action, AlterSettings)
    assert (action.topic, dict(action.before)) == (topic, {name: value})
    assert action.after[name] != value


@pytest.mark.parametrize(
    ("topic", "settings", "what"),
    [
        ("events", {"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        ("events", {"retention_ms": 1000}, "records are kept 1 s, and the configuration says 30 days"),
        (URGENT, {"retention_ms": -1}, "records are kept without end, and the configuration says 8 days"),
        (URGENT, {"message_timestamp_type": "CreateTime"}, "a process with a wrong clock"),
    ],
)
def test_what_loses_no_mail_is_a_warning(topic: str, settings: dict[str, object], what: str) -> None:
    wanted = config()
    problem = the_problem(wanted, changed(as_wanted(wanted), topic, **settings))
    assert (problem.topic, problem.severity) == (topic, Severity.WARNING)
    assert what in problem.what


def test_too_few_copies_are_not_repaired_by_apply() -> None:
    wanted = config()
    found = plan(wanted, changed(as_wanted(wanted), URGENT, replicas=2))
    (problem,) = found.dangers
    assert "2 copies, and log.kafka.replication_factor is 3" in problem.what
    assert "kafka-reassign-partitions" in problem.repair
    assert found.actions == ()


def test_single_broker_is_allowed_where_the_configuration_says_so() -> None:
    wanted = config(replication_factor=1, min_insync_replicas=1)
    assert plan(wanted, replace(as_wanted(wanted), brokers=1)).problems == ()


def test_one_in_sync_of_three_copies_is_dangerous_though_it_is_configured() -> None:
    wanted = config(replication_factor=3, min_insync_replicas=1)
    found = plan(wanted, as_wanted(wanted))
    assert len(found.dangers) == len(specs(wanted)) - 1
    assert {problem.repair for problem in found.dangers} == {
        "set log.kafka.min_insync_replicas to 2, then run: postrail topics apply"
    }


def test_more_in_sync_than_copies_stores_nothing() -> None:
    wanted = config(replication_factor=1, min_insync_replicas=1)
    problem = the_problem(wanted, replace(changed(as_wanted(wanted), URGENT, min_insync_replicas=2), brokers=1))
    assert problem.severity is Severity.DANGER
    assert "only 1 copy: nothing can be stored" in problem.what
    assert problem.repair == "run: postrail topics apply"


def test_partitions_are_raised_only_when_asked() -> None:
    wanted = config()
    observed = changed(as_wanted(wanted), "accepted.bulk", partitions=6)
    raise_it = RaisePartitions("accepted.bulk", 6, 12)
    found = plan(wanted, observed)
    assert (found.actions, found.held_back, found.dangers) == ((), (raise_it,), ())
    assert "keys move" in found.problems[0].repair
    assert plan(wanted, observed, raise_partitions=True).actions == (raise_it,)


def test_partitions_are_never_lowered() -> None:
    wanted = config()
    found = plan(wanted, changed(as_wanted(wanted), "accepted.bulk", partitions=24), raise_partitions=True)
    assert (found.actions, found.problems) == ((), ())


def test_topics_of_one_sender_with_different_partitions_are_dangerous() -> None:
    wanted = config()
    found = plan(wanted, changed(as_wanted(wanted), URGENT, partitions=24))
    (problem,) = found.dangers
    assert problem.topic == "outbound.default.gmail"
    assert f"{URGENT} has 24, outbound.default.gmail.bulk has 12" in problem.what
    assert "{outbound.default.gmail: 24} or more, then run: postrail topics apply --raise-partitions" in problem.repair


def test_outbound_topic_of_no_pool_is_pointed_out() -> None:
    wanted = config()
    observed = as_wanted(wanted)
    old = {"outbound.old.gmail.bulk": ObservedTopic(12, 3, {}), "somebody-elses": ObservedTopic(1, 1, {})}
    problem = the_problem(wanted, replace(observed, topics={**observed.topics, **old}))
    assert (problem.topic, problem.severity) == ("outbound.old.gmail", Severity.WARNING)
    assert "no sender reads" in problem.what


def test_offsets_that_are_forgotten_too_soon_are_pointed_out() -> None:
    wanted = config()
    problem = the_problem(wanted, replace(as_wanted(wanted), offsets_kept_seconds=7 * DAY))
    assert problem.severity is Severity.WARNING
    assert "7 days after its last member left" in problem.what
    assert problem.repair == "set offsets.retention.minutes=11520 or more on the brokers"


def test_too_few_brokers_and_unknown_names_are_pointed_out() -> None:
    wanted = config(topic_partitions={"outbound.default.gmial": 3})
    few, name = plan(wanted, replace(as_wanted(wanted), brokers=1)).problems
    assert "1 brokers, fewer than log.kafka.replication_factor (3)" in few.what
    assert "outbound.default.gmial, which is no topic" in name.what
