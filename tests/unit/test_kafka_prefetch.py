"""What a member of a Kafka group has fetched ahead, and what waits to be appended: the bookkeeping, without a broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.identity import group_of, message_id
from postrail.ingress.acceptance import RandomCharacters
from postrail.log.interface import LogUnavailable, Position, TopicPartition
from postrail.log.kafka.outbox import Call, Item, Queue
from postrail.log.kafka.pace import Pace
from postrail.log.kafka.prefetch import MIN_SHARE_BYTES, Prefetch
from postrail.log.kafka.records import Headers, partition_of
from postrail.log.progress import Progress

OUTER = KafkaPartition("x.accepted.bulk", 0)
INNER = TopicPartition("accepted.bulk", 0)


@dataclass
class Fetched:
    offset: int
    value: bytes | None = b"v"
    partition: int = 0
    timestamp: int = 1_800_000_000_000
    key: bytes | None = b"k"
    headers: Headers = ()


class Held:
    """A prefetch of one topic, and which partitions it holds back."""

    def __init__(self) -> None:
        self.partitions: list[KafkaPartition] = []
        self.ahead = Prefetch(
            ["accepted.bulk"],
            {"x.accepted.bulk": "accepted.bulk"},
            1 << 20,
            self.partitions.append,
            self.partitions.remove,
        )

    def start(self, progress: Progress, first: int, end: int) -> None:
        buffer = self.ahead.buffer(OUTER)
        buffer.start(progress, first, end)
        self.ahead.start([buffer])


def offsets(ahead: Prefetch, count: int = 100) -> list[int]:
    return [record.offset for record in ahead.take(count)]


def test_finished_offsets_are_passed_over_also_when_they_came_before_the_start() -> None:
    held = Held()
    assert held.ahead.push({OUTER: [Fetched(2), Fetched(3), Fetched(4)]}) == []
    assert held.ahead.take(10) == [], "not handed out before the service has heard of the partition"
    held.start(Progress(2, frozenset({3, 6})), 0, 8)
    assert held.ahead.lag(lambda _: 0) == 4
    assert offsets(held.ahead) == [2, 4]
    held.ahead.push({OUTER: [Fetched(5), Fetched(6), Fetched(7)]})
    assert held.ahead.lag(lambda _: 10) == 4
    assert offsets(held.ahead, 1) == [5]
    assert offsets(held.ahead) == [7]
    assert held.ahead.lag(lambda _: 10) == 2


def test_offsets_that_go_back_are_told_and_not_taken() -> None:
    held = Held()
    held.start(Progress(5), 0, 9)
    assert held.ahead.push({OUTER: [Fetched(0), Fetched(1)]}) == [OUTER]
    assert held.ahead.take(10) == []


def test_a_full_partition_is_held_until_half_of_it_is_taken() -> None:
    held = Held()
    held.start(Progress(0), 0, 0)
    for number in range(100):
        held.ahead.push({OUTER: [Fetched(number, bytes(20_000))]})
    assert held.partitions == [OUTER]
    while held.partitions:
        assert held.ahead.take(1)
    assert MIN_SHARE_BYTES < held.ahead.size_bytes < 1 << 19


def test_paused_and_dropped_partitions_give_nothing() -> None:
    held = Held()
    held.start(Progress(0), 0, 3)
    held.ahead.push({OUTER: [Fetched(0)]})
    held.ahead.pause([INNER])
    assert held.ahead.take(10) == []
    held.ahead.resume([INNER])
    held.ahead.drop()
    assert held.ahead.take(10) == []
    assert held.ahead.open == []


def test_a_key_picks_the_same_partition_for_ever() -> None:
    """All versions of all processes must agree, or two of them own one site."""
    assert [partition_of(key, 12) for key in (b"192.0.2.1|gmail", b"192.0.2.2|gmail", b"")] == [6, 7, 0]
    assert {partition_of(b"%d" % key, 12) for key in range(200)} == set(range(12))


def test_messages_that_came_in_together_stay_together() -> None:
    """A batch of theirs is one of few partitions, at each step of their way; over time all partitions get as many."""
    characters = RandomCharacters()
    keys = [message_id(now / 1000, characters.take(now / 1000)).encode() for now in range(6400)]
    partitions = [partition_of(key, 12) for key in keys]
    assert all(len(set(partitions[start : start + 16])) == 1 for start in range(0, 6400, 16))
    assert {partitions.count(number) > 100 for number in range(12)} == {True}
    slow = {message_id(now, characters.take(now))[10:14] for now in range(0, 640, 10)}
    assert len(slow) == 64, "what comes seldom is no group"


def test_only_a_message_id_has_a_group() -> None:
    assert group_of(b"01hzzzzzzzaaaabbbbccccdddd") == b"aaaa"
    for key in (b"192.0.2.1|mail.example.org", b"|mail.abcdefgh.example.org", b"", b"k"):
        assert group_of(key) == key


def test_who_is_behind_has_partitions_that_are_fetched_and_go_on() -> None:
    held = Held()
    held.start(Progress(0), 0, 3)
    assert not held.ahead.is_behind(lambda _: 0), "nothing was fetched yet"
    held.ahead.push({OUTER: [Fetched(0), Fetched(1)]})
    assert held.ahead.is_behind(lambda _: 3)
    assert not held.ahead.is_behind(lambda _: 2)
    held.ahead.push({OUTER: [Fetched(2, b"v" * (2 << 20))]})
    assert held.partitions == [OUTER]
    assert not held.ahead.is_behind(lambda _: 9), "it is not fetched: it has enough"


def test_the_pause_is_as_long_as_enough_records_take_and_not_longer() -> None:
    for per_second, expected in ((1000, 0.016), (250, 0.064), (10, 0.1), (1, 0.1)):
        pace = Pace(0.1, 0.0)
        pauses = [pace.pause_seconds(second, per_second, is_behind=False) for second in range(1, 20)]
        assert pauses[-1] == pytest.approx(expected, rel=0.01)
    pace = Pace(0.1, 0.0)
    assert pace.pause_seconds(1, 100, is_behind=True) == 0.0
    assert pace.pause_seconds(2, 0, is_behind=False) == 0.0
    assert Pace(0.0, 0.0).pause_seconds(1, 1, is_behind=False) == 0.0


async def test_a_call_is_answered_when_all_of_its_records_are_stored() -> None:
    call = Call(asyncio.get_running_loop().create_future(), 2, 10.0)
    call.stored(1, Position("t", 1, 7))
    assert not call.future.done()
    call.stored(0, Position("t", 0, 3))
    assert await call.future == [Position("t", 0, 3), Position("t", 1, 7)]


async def test_calls_expire_in_their_order_and_free_what_they_held() -> None:
    loop = asyncio.get_running_loop()
    queue = Queue("x.t", 0)
    calls = [Call(loop.create_future(), 1, deadline) for deadline in (1.0, 2.0, 3.0)]
    queue.items.extend(Item(call, 0, b"k", b"v", [], 100) for call in calls)
    assert queue.expire(2.0, LogUnavailable("too slow")) == 200
    assert [call.future.done() for call in calls] == [True, True, False]
    assert isinstance(calls[0].future.exception(), LogUnavailable)
    assert isinstance(calls[1].future.exception(), LogUnavailable)


async def test_what_was_refused_together_comes_first_and_alone() -> None:
    queue = Queue("x.t", 0)
    call = Call(asyncio.get_running_loop().create_future(), 3, 9.0)
    first, second, later = (Item(call, place, b"k", b"v", [], 1) for place in range(3))
    queue.items.append(later)
    queue.put_back([first, second])
    assert [item.place for item in queue.items] == [0, 1, 2]
    assert queue.single == 2
