"""What the Kafka log does at its borders: errors, sizes, positions, names, ownership; and what it needs of aiokafka's insides."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer, codec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import Append, LogUnavailable, Record, RecordTooLarge, TopicPartition
from postrail.log.kafka.coordinator import Coordinator
from postrail.log.progress import Progress
from tests.contract.log_contract import done, numbered, read, settled, values
from tests.support.kafka import KafkaBroker
from tests.support.kafka_log import kafka_config, kafka_log

FIRST = TopicPartition("accepted.bulk", 0)


@pytest.fixture
def config(kafka_broker: KafkaBroker, kafka_prefix: str) -> KafkaConfig:
    return kafka_config(kafka_broker.bootstrap, kafka_prefix)


def test_aiokafka_has_the_insides_that_are_overridden() -> None:
    """An upgrade that fails here: read what became of the method, then change its override in log/kafka."""
    expected = {
        GroupCoordinator._send_req: ["self", "request"],
        GroupCoordinator._on_join_complete: ["self", "generation", "member_id", "protocol", "member_assignment_bytes"],
        GroupCoordinator._maybe_leave_group: ["self"],
        GroupCoordinator._start_heartbeat_task: ["self"],
        GroupCoordinator.reset_generation: ["self"],
        GroupCoordinator.request_rejoin: ["self"],
        GroupCoordinator.commit_offsets: ["self", "assignment", "offsets"],
        GroupCoordinator.fetch_committed_offsets: ["self", "partitions"],
        Fetcher._get_actions_per_node: ["self", "assignment"],
        Fetcher._proc_fetch_request: ["self", "assignment", "node_id", "request"],
        Fetcher._update_fetch_positions: ["self", "assignment", "node_id", "tps"],
        Fetcher._create_fetch_waiter: ["self"],
        Fetcher._notify: ["self", "future"],
        FetchResult.getall: ["self", "max_records"],
        AIOKafkaProducer.send_batch: ["self", "batch", "topic", "partition"],
    }
    for method, parameters in expected.items():
        assert list(inspect.signature(method).parameters) == parameters, method
    assert "self._wait_consume_future = create_future()" in inspect.getsource(Fetcher._fetch_requests_routine)
    assert list(inspect.signature(codec.zstd_encode).parameters) == ["payload", "level"]
    assert "self._send_req(request)" in inspect.getsource(GroupCoordinator._do_heartbeat)
    assert "_request_timeout" in inspect.getsource(AIOKafkaConnection.send)


async def test_the_lease_is_renewed_by_heartbeats(config: KafkaConfig) -> None:
    async with kafka_log(config) as log:
        consumer = await log.consumer(["accepted.bulk"], "sender")
        coordinator = consumer.member.coordinator
        assert isinstance(coordinator, Coordinator)
        assert 0 < consumer.lease_seconds() <= 0.8 * config.session_timeout_seconds
        for _ in range(3):
            heard_at = coordinator.heard_at
            await settled(lambda before=heard_at: coordinator.heard_at > before)  # type: ignore[misc]
        await consumer.close()
        assert consumer.lease_seconds() <= 0


async def test_what_comes_one_by_one_is_read_together(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    config = kafka_config(kafka_broker.bootstrap, kafka_prefix, pace_seconds=0.25)
    async with kafka_log(config) as log:
        consumer = await log.consumer(["accepted.bulk"], "signing")

        async def one_by_one() -> None:
            for number in range(100):
                await log.append([Append("accepted.bulk", b"k", b"%d" % number)])
                await asyncio.sleep(0.01)

        writing = asyncio.create_task(one_by_one())
        polls: list[int] = []
        while sum(polls) < 100:
            polls.append(len(await consumer.poll(100, 10.0)))
        await writing
        assert len(polls) < 30


async def test_a_backlog_is_read_without_a_pause(
    kafka_broker: KafkaBroker, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = kafka_config(kafka_broker.bootstrap, kafka_prefix, fetch_bytes=1 << 20, compression="none", pace_seconds=1)
    async with kafka_log(config) as log:
        await log.append([Append("accepted.bulk", b"k", b"%d" % number, bytes(10_000)) for number in range(300)])
        consumer = await log.consumer(["accepted.bulk"], "signing")
        pauses: list[float] = []
        go_on = consumer.member.fetcher.go_on

        def noted(after_seconds: float) -> None:
            pauses.append(after_seconds)
            go_on(after_seconds)

        monkeypatch.setattr(consumer.member.fetcher, "go_on", noted)
        assert len(await read(consumer, 300)) == 300
        await settled(lambda: any(pauses))
        assert pauses.index(next(filter(None, pauses))) >= 3, "several fetches were needed"


async def test_a_missing_topic_is_named_with_the_command_that_makes_it(
    kafka_broker: KafkaBroker, kafka_prefix: str
) -> None:
    config = kafka_config(kafka_broker.bootstrap, kafka_prefix, create_topics=False)
    async with kafka_log(config) as log:
        with pytest.raises(LogUnavailable, match=rf"{kafka_prefix}accepted.bulk does not exist.*postrail topics apply"):
            await log.append(numbered("accepted.bulk", 1))
        with pytest.raises(LogUnavailable, match=r"postrail topics apply"):
            await log.consumer(["accepted.bulk"], "signing")
        assert list(log.topic_names()) == []


async def test_a_record_that_is_too_large_fails_alone(config: KafkaConfig) -> None:
    async with kafka_log(config) as log:
        one, other = numbered("accepted.bulk", 2)
        large = Append("accepted.bulk", b"k", b"v", bytes(config.max_record_bytes))
        with pytest.raises(RecordTooLarge, match="max_record_bytes") as raised:
            await log.append([one, large, other])
        assert raised.value.left_of([[one, large], [other]]) == [[large], []]
        with pytest.raises(RecordTooLarge, match="max_record_bytes"):
            await log.append([large])
        assert len(await log.append(numbered("accepted.bulk", 1, start=2))) == 1
        assert values(await read(await log.consumer(["accepted.bulk"], "g"), 3)) == [b"0", b"1", b"2"]


async def test_a_batch_that_the_broker_finds_too_large_is_taken_apart(config: KafkaConfig) -> None:
    """The topic's limit is below ours: only the record that is beyond it fails, and it fails for good."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(config.bootstrap_servers))
    await admin.start()
    topic = NewTopic(f"{config.topic_prefix}accepted.bulk", 1, 1, topic_configs={"max.message.bytes": "20000"})
    await admin.create_topics([topic])
    await admin.close()
    async with kafka_log(config) as log:
        bodies = [os.urandom(50_000 if number == 3 else 5_000) for number in range(8)]
        calls = [log.append([Append("accepted.bulk", b"k", b"%d" % n, body)]) for n, body in enumerate(bodies)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(result, RecordTooLarge) for result in results] == [number == 3 for number in range(8)]
        assert values(await read(await log.consumer(["accepted.bulk"], "g"), 7)) == [
            b"%d" % n for n in range(8) if n != 3
        ]
        together = [Append("accepted.bulk", b"k", b"%d" % n, body) for n, body in enumerate(bodies)]
        with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes") as raised:
            await log.append(together)
        assert set(raised.value.places) == {3}, "the others are stored"
        assert len(await read(await log.consumer(["accepted.bulk"], "h"), 14)) == 14


async def test_a_producer_that_is_refused_is_replaced(config: KafkaConfig) -> None:
    async with kafka_log(config) as log:
        await log.append(numbered("accepted.bulk", 1))
        session = log._producer._sessions.current
        assert session is not None
        outer = KafkaPartition(f"{config.topic_prefix}accepted.bulk", 0)
        session.producer._txn_manager.increment_sequence_number(outer, 5)  # as a batch that failed leaves it
        with pytest.raises(LogUnavailable, match="OutOfOrderSequence"):
            await log.append(numbered("accepted.bulk", 1))
        await log.append(numbered("accepted.bulk", 1, start=1))
        assert log.problem() is None
        assert log._producer._sessions.current is not session
        assert values(await read(await log.consumer(["accepted.bulk"], "g"), 2)) == [b"0", b"1"]


async def test_an_offset_beyond_the_end_starts_at_the_earliest(config: KafkaConfig) -> None:
    """The topic was made anew: what the group knew of the old one must hide nothing of the new one."""
    async with kafka_log(config) as log:
        await log.append(numbered("accepted.bulk", 5))
        await log.transact([], [done("sender", 100, 102)])
        assert await log.committed("sender", ["accepted.bulk"]) == {FIRST: Progress(100, frozenset({102}))}
        seen: list[Progress] = []

        async def note(_: Sequence[TopicPartition]) -> None:
            seen.append((await log.committed("sender", ["accepted.bulk"]))[FIRST])

        consumer = await log.consumer(["accepted.bulk"], "sender", on_assigned=note)
        assert seen == [Progress(0)]
        assert [record.offset for record in await read(consumer, 5)] == [0, 1, 2, 3, 4]


async def test_records_that_age_has_removed_are_passed_over(config: KafkaConfig) -> None:
    async with kafka_log(config) as log:
        await log.append(numbered("accepted.bulk", 10))
        await log.transact([], [done("sender", 2, 3, 7)])
        admin = AIOKafkaAdminClient(bootstrap_servers=list(config.bootstrap_servers))
        await admin.start()
        outer = KafkaPartition(f"{config.topic_prefix}accepted.bulk", 0)
        await admin.delete_records({outer: RecordsToDelete(before_offset=5)})
        await admin.close()
        consumer = await log.consumer(["accepted.bulk"], "sender")
        assert consumer.lag() == 4
        assert [record.offset for record in await read(consumer, 4)] == [5, 6, 8, 9]


async def test_what_another_member_owns_is_not_committed(config: KafkaConfig) -> None:
    async with kafka_log(config) as one, kafka_log(config) as other:
        await one.append(numbered("accepted.bulk", 4))
        left = await one.consumer(["accepted.bulk"], "sender")
        await left.close()
        await other.consumer(["accepted.bulk"], "sender")
        await other.transact([], [done("sender", 3)])
        await one.transact(numbered("signed.bulk", 1), [done("sender", 1)])
        assert (await other.committed("sender", ["accepted.bulk"]))[FIRST] == Progress(3)
        assert values(await read(await other.consumer(["signed.bulk"], "g"), 1)) == [b"0"], "the append stands"


async def test_processes_of_one_name_share_the_work_all_the_same(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    """The name is for one process; where two have it by mistake, both work on, one of them without it."""
    config = kafka_config(kafka_broker.bootstrap, kafka_prefix, partitions=4, instance="pod-0")
    everything = [TopicPartition("accepted.bulk", number) for number in range(4)]
    async with kafka_log(config) as one, kafka_log(config) as other:
        members = [await log.consumer(["accepted.bulk"], "sender") for log in (one, other)]
        await settled(lambda: sorted(where for member in members for where in member.assigned) == everything)
        await settled(lambda: all(len(member.assigned) == 2 for member in members))
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert all(len(member.assigned) == 2 for member in members), "they take it from each other"


async def test_a_process_that_comes_back_under_its_name_disturbs_nobody(
    kafka_broker: KafkaBroker, kafka_prefix: str
) -> None:
    def config(instance: str) -> KafkaConfig:
        return kafka_config(kafka_broker.bootstrap, kafka_prefix, partitions=4, instance=instance)

    moves: list[int] = []

    async def note(partitions: Sequence[TopicPartition]) -> None:
        moves.append(len(partitions))

    async with kafka_log(config("pod-0")) as neighbour, kafka_log(config("pod-1")) as first:
        beside = await neighbour.consumer(["accepted.bulk"], "sender", on_revoked=note)
        crashing = await first.consumer(["accepted.bulk"], "sender")
        await settled(lambda: len(beside.assigned) == len(crashing.assigned) == 2)
        moves.clear()
        owned = sorted(crashing.assigned)
        crashing.member.coordinator.generation = -1  # it leaves without a word, as a crash does
        await crashing.close()
        async with kafka_log(config("pod-1")) as second:
            back = await second.consumer(["accepted.bulk"], "sender")
            assert sorted(back.assigned) == owned
            assert moves == []
            assert len(beside.assigned) == 2


async def test_a_service_that_cannot_take_over_is_told(config: KafkaConfig) -> None:
    async def refuse(_: Sequence[TopicPartition]) -> None:
        raise ValueError("not today")

    async with kafka_log(config) as log:
        with pytest.raises(ValueError, match="not today"):
            await log.consumer(["accepted.bulk"], "sender", on_assigned=refuse)
        assert values(await log.tail("accepted.bulk", 0, newest=5)) == []


async def test_what_is_fetched_ahead_is_bounded(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    config = kafka_config(kafka_broker.bootstrap, kafka_prefix, fetch_bytes=1 << 20, compression="none")
    async with kafka_log(config) as log:
        bodies = [os.urandom(100_000) for _ in range(100)]
        for start in range(0, 100, 10):
            await log.append([Append("accepted.bulk", b"k", b"", body) for body in bodies[start : start + 10]])
        consumer = await log.consumer(["accepted.bulk"], "sender")
        highest = 0
        found: list[Record] = []
        while len(found) < 100:
            await asyncio.sleep(0.01)
            highest = max(highest, consumer.fetched_bytes())
            assert consumer.lag() + len(found) == 100
            found += await consumer.poll(1, 5.0)
        assert [await record.body.load() for record in found if record.body is not None] == bodies
        assert highest <= 3 << 20


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_tls_and_passwords(kafka_broker: KafkaBroker, kafka_prefix: str, mechanism: str) -> None:
    secure = kafka_broker.secure
    if secure is None:
        pytest.skip("the broker that was given has no such listener of ours")
    sasl = {"mechanism": mechanism, "username": secure.username, "password": secure.password}
    tls = {"enabled": True, "ca_file": str(secure.ca_file)}
    async with kafka_log(kafka_config(secure.bootstrap, kafka_prefix, tls=tls, sasl=sasl)) as log:
        await log.append(numbered("accepted.bulk", 3))
        consumer = await log.consumer(["accepted.bulk"], "signing")
        assert values(await read(consumer, 3)) == [b"0", b"1", b"2"]
        await log.transact([], [done("signing", 3)])
        assert (await log.committed("signing", ["accepted.bulk"]))[FIRST] == Progress(3)
        assert len(await log.tail("accepted.bulk", 0, newest=2)) == 2
    wrong = kafka_config(secure.bootstrap, kafka_prefix, tls=tls, sasl=sasl | {"password": "guess"})
    with pytest.raises(LogUnavailable, match=r"cannot be reached"):
        async with kafka_log(wrong):
            pass
