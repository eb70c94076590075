"""What any implementation of `postrail.log.interface.Log` must do. Inherit `LogContract` and give it a `log_factory`.

Owns the behaviours and nothing else: no name of an implementation stands here. A factory opens the same storage again after
the log was closed, so that durability can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import pytest

from postrail.log.interface import (
    Append,
    Commit,
    Consumer,
    Log,
    LogError,
    LogUnavailable,
    Position,
    Rebalance,
    Record,
    TopicPartition,
)
from postrail.log.progress import Progress, Tracker

FIRST = TopicPartition("accepted.bulk", 0)


class LogFactory(Protocol):
    """Opens one storage, again and again."""

    async def open(self, *, partitions: int = 1, keep_consumed_seconds: float = 60.0) -> Log:
        """The log; the one opened before must be closed."""
        ...

    async def let_trim(self, log: Log) -> None:
        """Return once everything has gone that finished records and age allow to go."""
        ...


async def read(consumer: Consumer, count: int, *, at_once: int = 100) -> list[Record]:
    """Poll until `count` records have come, and see that no more do."""
    found: list[Record] = []
    for _ in range(200):
        found += await consumer.poll(at_once, 0.2 if len(found) < count else 0.0)
        if len(found) >= count:
            break
    assert len(found) == count, f"{len(found)} records instead of {count}"
    assert await consumer.poll(at_once, 0.0) == []
    return found


async def settled(holds: Callable[[], bool]) -> None:
    """Return when it holds; a log whose members live apart takes a moment to agree."""
    for _ in range(400):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to hold within 20 s")


def values(records: Sequence[Record]) -> list[bytes]:
    return [record.value for record in records]


def numbered(topic: str, count: int, start: int = 0) -> list[Append]:
    return [Append(topic, b"key", b"%d" % number) for number in range(start, start + count)]


def done(group: str, low: int, *above: int, where: TopicPartition = FIRST) -> Commit:
    return Commit(group, where, Progress(low, frozenset(above)))


class LogContract:
    """Behaviours of appending, reading, committing and sharing."""

    @pytest.fixture
    async def log(self, log_factory: LogFactory) -> Log:
        return await log_factory.open()

    async def test_what_was_appended_is_read_in_order(self, log: Log) -> None:
        positions = await log.append(numbered("accepted.bulk", 5))
        assert positions == [Position("accepted.bulk", 0, offset) for offset in range(5)]
        consumer = await log.consumer(["accepted.bulk"], "signing")
        records = await read(consumer, 5)
        assert values(records) == [b"0", b"1", b"2", b"3", b"4"]
        assert [record.offset for record in records] == [0, 1, 2, 3, 4]
        assert {record.key for record in records} == {b"key"}
        assert all(record.appended_at > 0 for record in records)

    async def test_records_and_bodies_survive_a_restart(self, log: Log, log_factory: LogFactory) -> None:
        await log.append([Append("accepted.bulk", b"a", b"first", b"x" * 10_000), Append("events", b"a", b"event")])
        await log.close()
        log = await log_factory.open()
        await log.append([Append("accepted.bulk", b"b", b"second")])
        consumer = await log.consumer(["accepted.bulk", "events"], "signing")
        first, second, event = sorted(await read(consumer, 3), key=lambda record: (record.topic, record.offset))
        assert (first.offset, second.offset, event.offset) == (0, 1, 0)
        assert first.body is not None
        assert first.body.size_bytes == 10_000
        assert await first.body.load() == b"x" * 10_000
        assert second.body is None

    async def test_offsets_are_not_given_twice_after_all_was_trimmed(self, log_factory: LogFactory) -> None:
        log = await log_factory.open(keep_consumed_seconds=0.0)
        await log.append(numbered("accepted.bulk", 3))
        consumer = await log.consumer(["accepted.bulk"], "signing")
        await read(consumer, 3)
        await log.transact([], [done("signing", 3)])
        await log_factory.let_trim(log)
        await log.close()
        log = await log_factory.open(keep_consumed_seconds=0.0)
        [position] = await log.append(numbered("accepted.bulk", 1, start=3))
        assert position.offset == 3
        assert values(await read(await log.consumer(["accepted.bulk"], "signing"), 1)) == [b"3"]

    async def test_a_body_goes_from_topic_to_topic(self, log: Log, log_factory: LogFactory) -> None:
        await log.append([Append("accepted.bulk", b"a", b"1", b"content")])
        [record] = await read(await log.consumer(["accepted.bulk"], "signing"), 1)
        await log.transact([Append("signed.bulk", b"a", b"2", record.body)], [done("signing", 1)])
        [signed] = await read(await log.consumer(["signed.bulk"], "routing"), 1)
        assert signed.body is not None
        assert await signed.body.load() == b"content"
        await log.close()
        log = await log_factory.open()
        [again] = await read(await log.consumer(["signed.bulk"], "routing"), 1)
        assert again.body is not None
        assert await again.body.load() == b"content"

    async def test_a_body_outlives_the_record_that_brought_it(self, log_factory: LogFactory) -> None:
        log = await log_factory.open(keep_consumed_seconds=0.0)
        await log.append([Append("accepted.bulk", b"a", b"1", b"content")])
        [record] = await read(await log.consumer(["accepted.bulk"], "signing"), 1)
        await log.transact([Append("signed.bulk", b"a", b"2", record.body)], [done("signing", 1)])
        await log_factory.let_trim(log)
        await log.close()
        log = await log_factory.open(keep_consumed_seconds=0.0)
        [again] = await read(await log.consumer(["signed.bulk"], "routing"), 1)
        assert again.body is not None
        assert await again.body.load() == b"content"

    async def test_what_a_value_encodes_may_come_with_it_and_is_never_stored(
        self, log: Log, log_factory: LogFactory
    ) -> None:
        meaning = object()
        consumer = await log.consumer(["accepted.bulk"], "signing")
        await log.append([Append("accepted.bulk", b"a", b"1", None, meaning), Append("accepted.bulk", b"a", b"2")])
        first, second = await read(consumer, 2)
        assert (first.value, second.value) == (b"1", b"2")
        assert first.decoded in (None, meaning)
        assert second.decoded is None
        await log.close()
        log = await log_factory.open()
        again = await read(await log.consumer(["accepted.bulk"], "signing"), 2)
        assert [(record.value, record.decoded) for record in again] == [(b"1", None), (b"2", None)]

    async def test_topics_are_known_by_name_and_stay_known(self, log: Log, log_factory: LogFactory) -> None:
        await log.append(numbered("accepted.bulk", 1))
        await log.consumer(["signed.bulk"], "routing")
        assert sorted(log.topic_names()) == ["accepted.bulk", "signed.bulk"]
        await log.close()
        assert sorted((await log_factory.open()).topic_names()) == ["accepted.bulk", "signed.bulk"]

    async def test_an_empty_body_is_not_no_body(self, log: Log) -> None:
        await log.append([Append("accepted.bulk", b"a", b"1", b"")])
        [record] = await read(await log.consumer(["accepted.bulk"], "signing"), 1)
        assert record.body is not None
        assert await record.body.load() == b""

    async def test_a_reader_waits_for_what_comes(self, log: Log) -> None:
        consumer = await log.consumer(["accepted.bulk"], "signing")
        polling = asyncio.create_task(consumer.poll(10, 30.0))
        await asyncio.sleep(0)
        await log.append(numbered("accepted.bulk", 1))
        assert values(await polling) == [b"0"]

    async def test_a_poll_without_records_ends(self, log: Log) -> None:
        consumer = await log.consumer(["accepted.bulk"], "signing")
        assert await consumer.poll(10, 0.01) == []

    async def test_groups_read_all_each(self, log: Log) -> None:
        await log.append(numbered("events", 3))
        one = await log.consumer(["events"], "reporting")
        other = await log.consumer(["events"], "webhooks")
        assert values(await read(one, 3)) == values(await read(other, 3)) == [b"0", b"1", b"2"]
        await log.transact([], [done("reporting", 3, where=TopicPartition("events", 0))])
        assert await log.committed("webhooks", ["events"]) == {}

    async def test_a_group_resumes_at_what_it_finished(self, log: Log, log_factory: LogFactory) -> None:
        await log.append(numbered("accepted.bulk", 10))
        consumer = await log.consumer(["accepted.bulk"], "sender")
        await read(consumer, 10)
        await log.transact([], [done("sender", 2, 4, 5, 8)])
        await log.close()
        log = await log_factory.open()
        assert await log.committed("sender", ["accepted.bulk"]) == {FIRST: Progress(2, frozenset({4, 5, 8}))}
        await log.append(numbered("accepted.bulk", 1, start=10))
        again = await read(await log.consumer(["accepted.bulk"], "sender"), 6)
        assert [record.offset for record in again] == [2, 3, 6, 7, 9, 10]

    async def test_what_was_polled_and_not_committed_comes_again_to_a_new_consumer_only(self, log: Log) -> None:
        await log.append(numbered("accepted.bulk", 3))
        consumer = await log.consumer(["accepted.bulk"], "sender")
        await read(consumer, 3)
        assert await consumer.poll(10, 0.01) == []
        await consumer.close()
        assert len(await read(await log.consumer(["accepted.bulk"], "sender"), 3)) == 3

    async def test_what_was_transacted_stands_whole_after_a_restart(self, log: Log, log_factory: LogFactory) -> None:
        await log.append(numbered("accepted.bulk", 1))
        await read(await log.consumer(["accepted.bulk"], "signing"), 1)
        await log.transact(numbered("signed.bulk", 2), [done("signing", 1)])
        await log.close()
        log = await log_factory.open()
        assert (await log.committed("signing", ["accepted.bulk"]))[FIRST].low == 1
        assert values(await read(await log.consumer(["signed.bulk"], "routing"), 2)) == [b"0", b"1"]

    async def test_a_topic_in_front_is_read_first_and_the_others_get_their_fifth(self, log: Log) -> None:
        await log.append(numbered("accepted.urgent", 100) + numbered("accepted.bulk", 100))
        consumer = await log.consumer(["accepted.urgent", "accepted.bulk"], "signing")
        for _ in range(4):
            topics = Counter(record.topic for record in await consumer.poll(10, 1.0))
            assert sum(topics.values()) == 10
            assert topics["accepted.urgent"] >= topics["accepted.bulk"] >= 2

    async def test_a_topic_in_front_gets_all_when_the_others_are_empty(self, log: Log) -> None:
        await log.append(numbered("accepted.urgent", 30))
        consumer = await log.consumer(["accepted.urgent", "accepted.bulk"], "signing")
        assert len(await consumer.poll(30, 1.0)) == 30

    async def test_no_topic_starves_when_one_record_is_polled_at_a_time(self, log: Log) -> None:
        await log.append(numbered("accepted.urgent", 50) + numbered("accepted.bulk", 50))
        consumer = await log.consumer(["accepted.urgent", "accepted.bulk"], "signing")
        topics = Counter([(await consumer.poll(1, 1.0))[0].topic for _ in range(20)])
        assert topics["accepted.urgent"] > topics["accepted.bulk"] >= 3

    async def test_paused_partitions_wait(self, log: Log) -> None:
        consumer = await log.consumer(["accepted.urgent", "accepted.bulk"], "signing")
        consumer.pause([FIRST])
        await log.append([*numbered("accepted.bulk", 2), *numbered("accepted.urgent", 1)])
        assert [record.topic for record in await read(consumer, 1)] == ["accepted.urgent"]
        polling = asyncio.create_task(consumer.poll(10, 30.0))
        await asyncio.sleep(0)
        consumer.resume([FIRST])
        assert [record.topic for record in await polling] == ["accepted.bulk"] * 2

    async def test_lag_counts_what_was_not_polled(self, log: Log) -> None:
        await log.append(numbered("accepted.bulk", 7))
        consumer = await log.consumer(["accepted.bulk"], "signing")
        assert consumer.lag() == 7
        assert len(await consumer.poll(3, 1.0)) == 3
        assert consumer.lag() == 4
        await log.append(numbered("accepted.bulk", 2))
        await settled(lambda: consumer.lag() == 6)
        await read(consumer, 6)
        assert consumer.lag() == 0

    async def test_members_of_a_group_share_partitions(self, log_factory: LogFactory) -> None:
        log = await log_factory.open(partitions=4)
        owners: dict[TopicPartition, str] = {}
        moves: list[str] = []

        def gains(name: str) -> Rebalance:
            async def note(partitions: Sequence[TopicPartition]) -> None:
                moves.append(f"{name} gains")
                for where in partitions:
                    assert where not in owners, "given to one before the other has let it go"
                    owners[where] = name

            return note

        def loses(name: str) -> Rebalance:
            async def note(partitions: Sequence[TopicPartition]) -> None:
                moves.append(f"{name} loses")
                for where in partitions:
                    assert owners.pop(where) == name

            return note

        everything = [TopicPartition("accepted.bulk", each) for each in range(4)]
        one = await log.consumer(["accepted.bulk"], "sender", on_assigned=gains("one"), on_revoked=loses("one"))
        assert moves == ["one gains"]
        assert sorted(owners) == everything
        other = await log.consumer(["accepted.bulk"], "sender", on_assigned=gains("other"), on_revoked=loses("other"))
        await settled(lambda: sorted([*one.assigned, *other.assigned]) == everything)
        assert len(one.assigned) == len(other.assigned) == 2
        assert sorted(owners) == everything
        assert [owners[where] for where in one.assigned] == ["one", "one"]
        assert moves.index("one loses") < moves.index("other gains")
        await log.append([Append("accepted.bulk", b"%d" % key, b"%d" % key) for key in range(40)])
        halves = [await one.poll(100, 1.0), await other.poll(100, 1.0)]
        assert sorted(int(value) for half in halves for value in values(half)) == list(range(40))
        assert all(halves)

    async def test_a_new_owner_sees_what_the_old_one_committed_on_revocation(self, log_factory: LogFactory) -> None:
        log = await log_factory.open()
        await log.append(numbered("accepted.bulk", 4))

        finished: list[Commit] = []

        async def commit(_: Sequence[TopicPartition]) -> None:
            await log.transact([], finished)

        members = [await log.consumer(["accepted.bulk"], "sender", on_revoked=commit) for _ in range(2)]
        await settled(lambda: [where for member in members for where in member.assigned] == [FIRST])
        old, new = sorted(members, key=lambda member: len(member.assigned), reverse=True)
        await read(old, 4)
        finished.append(done("sender", 1, 2))
        await old.close()
        await settled(lambda: list(new.assigned) == [FIRST])
        assert [record.offset for record in await read(new, 2)] == [1, 3]
        assert list(old.assigned) == []
        with pytest.raises(LogUnavailable):
            await old.poll(1, 0.0)

    async def test_a_key_keeps_its_partition_and_its_order(self, log_factory: LogFactory) -> None:
        log = await log_factory.open(partitions=3)
        for number in range(30):
            await log.append([Append("accepted.bulk", b"%d" % (number % 5), b"%d" % number)])
        consumer = await log.consumer(["accepted.bulk"], "sender")
        records = await read(consumer, 30)
        for key in {record.key for record in records}:
            mine = [record for record in records if record.key == key]
            assert len({record.partition for record in mine}) == 1
            assert [int(record.value) for record in mine] == sorted(int(record.value) for record in mine)

    async def test_unfinished_records_are_not_trimmed(self, log_factory: LogFactory) -> None:
        log = await log_factory.open(keep_consumed_seconds=0.0)
        await log.append([Append("accepted.bulk", b"k", b"%d" % number, b"body %d" % number) for number in range(10)])
        quick = await log.consumer(["accepted.bulk"], "quick")
        await log.consumer(["accepted.bulk"], "slow")
        await read(quick, 10)
        await log.transact([], [done("quick", 10)])
        await log_factory.let_trim(log)
        await log.close()
        log = await log_factory.open(keep_consumed_seconds=0.0)
        await log_factory.let_trim(log)
        await log.transact([], [done("slow", 4, 6)])
        await log_factory.let_trim(log)
        records = await read(await log.consumer(["accepted.bulk"], "slow"), 5)
        assert [record.offset for record in records] == [4, 5, 7, 8, 9]
        for record in records:
            assert record.body is not None
            assert await record.body.load() == b"body " + record.value

    async def test_the_tail_of_a_partition_is_read_without_a_group(self, log: Log) -> None:
        assert await log.tail("accepted.bulk", 0, newest=3) == []
        await log.append([Append("accepted.bulk", b"k", b"%d" % number, b"body") for number in range(10)])
        assert values(await log.tail("accepted.bulk", 0, newest=3)) == [b"7", b"8", b"9"]
        assert values(await log.tail("accepted.bulk", 0, newest=3, since=5)) == [b"5", b"6", b"7", b"8", b"9"]
        assert values(await log.tail("accepted.bulk", 0, newest=3, since=9)) == [b"7", b"8", b"9"]
        assert values(await log.tail("accepted.bulk", 0, newest=0, since=10)) == []
        [*_, last] = all_of_it = await log.tail("accepted.bulk", 0, newest=500)
        assert [record.offset for record in all_of_it] == list(range(10))
        assert (last.topic, last.partition, last.key) == ("accepted.bulk", 0, b"k")
        assert last.body is not None
        assert await last.body.load() == b"body"
        assert await log.tail("accepted.bulk", 99, newest=3) == []

    async def test_an_owner_that_is_heard_of_has_a_lease(self, log: Log) -> None:
        consumer = await log.consumer(["accepted.bulk"], "sender")
        await consumer.poll(1, 0.0)
        assert consumer.lease_seconds() > 0
        assert log.problem() is None

    async def test_many_tasks_append_at_a_time(self, log: Log) -> None:
        async def append(task: int) -> list[Position]:
            found = []
            for number in range(10):
                found += await log.append([Append("accepted.bulk", b"%d" % task, b"%d.%d" % (task, number), b"x" * 99)])
            return found

        consumer = await log.consumer(["accepted.bulk"], "signing")
        positions = [each for some in await asyncio.gather(*map(append, range(100))) for each in some]
        assert sorted(position.offset for position in positions) == list(range(1000))
        records = await read(consumer, 1000)
        assert [record.offset for record in records] == list(range(1000))
        assert len(set(values(records))) == 1000

    async def test_a_pipeline_loses_and_repeats_nothing(self, log: Log) -> None:
        total = 300

        async def stage(source: str, target: str) -> None:
            consumer, tracker, seen = await log.consumer([source], f"after {source}"), Tracker(0), 0
            while seen < total:
                records = await consumer.poll(17, 1.0)
                for record in records:
                    tracker.start(record.offset)
                for record in records:
                    tracker.finish(record.offset)
                appends = [Append(target, record.key, record.value, record.body) for record in records]
                await log.transact(appends, [Commit(f"after {source}", TopicPartition(source, 0), tracker.progress())])
                seen += len(records)

        async def inject() -> None:
            for number in range(total):
                await log.append([Append("accepted.bulk", b"k", b"%d" % number, b"%d" % number * 500)])

        stages = [("accepted.bulk", "signed.bulk"), ("signed.bulk", "outbound.p.g.bulk"), ("outbound.p.g.bulk", "end")]
        await asyncio.gather(inject(), *(stage(source, target) for source, target in stages))
        records = await read(await log.consumer(["end"], "check"), total)
        assert values(records) == [b"%d" % number for number in range(total)]
        for record in records:
            assert record.body is not None
            assert await record.body.load() == record.value * 500

    async def test_a_closed_log_takes_and_gives_nothing(self, log: Log) -> None:
        consumer = await log.consumer(["accepted.bulk"], "signing")
        polling = asyncio.create_task(consumer.poll(10, 30.0))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(log.append(numbered("accepted.bulk", 1)))
        await asyncio.sleep(0)
        await log.close()
        await log.close()
        assert (await waiting)[0].offset == 0, "what waited is stored before the log closes"
        assert log.problem() is not None
        with pytest.raises(LogUnavailable):
            await log.append(numbered("accepted.bulk", 1))
        with pytest.raises(LogUnavailable):
            await log.transact([], [])
        with pytest.raises(LogUnavailable):
            await log.consumer(["accepted.bulk"], "signing")
        with pytest.raises(LogError):
            await consumer.poll(1, 0.0)
        with contextlib.suppress(LogUnavailable):
            await polling  # the record came first, or the close
