"""The tiers share one member of the scheduler's group, and none of them holds up the others."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from postrail.log.interface import Append, Log, LogUnavailable, Record, TopicPartition
from postrail.scheduler import membership
from postrail.scheduler.membership import Membership, TierConsumer
from tests.support.memory_log import MemoryCluster, MemoryLog

TOPICS = ("deferred.1s", "deferred.60s")
GROUP = "scheduler"


class Moves:
    """Notes which partitions a tier was given and lost."""

    def __init__(self) -> None:
        self.given: list[TopicPartition] = []
        self.lost: list[TopicPartition] = []

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        self.given += partitions

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        self.lost += partitions


async def join(log: MemoryLog, moves: list[Moves] | None = None) -> list[TierConsumer]:
    shared = Membership(cast("Log", log), TOPICS)
    noted = moves or [Moves() for _ in TOPICS]
    calls = [
        shared.consumer([topic], GROUP, on_assigned=each.assigned, on_revoked=each.revoked)  # type: ignore[arg-type]
        for topic, each in zip(TOPICS, noted, strict=True)
    ]
    return list(await asyncio.gather(*calls))


async def leave(tiers: list[TierConsumer]) -> None:
    await asyncio.gather(*(tier.close() for tier in tiers))


async def put(cluster: MemoryCluster, topic: str, count: int) -> None:
    await MemoryLog(cluster).append([Append(topic, b"%d" % number, b"%d" % number) for number in range(count)])


async def read(tier: TierConsumer, count: int) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await tier.poll(100, 1.0)
    return found


async def test_all_tiers_are_one_member() -> None:
    log = MemoryLog(MemoryCluster(partitions=2))
    moves = [Moves(), Moves()]
    tiers = await join(log, moves)
    assert len(log.cluster.members[GROUP]) == 1
    assert [[where.topic for where in each.given] for each in moves] == [[topic] * 2 for topic in TOPICS]
    await put(log.cluster, "deferred.60s", 5)
    await put(log.cluster, "deferred.1s", 3)
    for tier, topic, count in zip(tiers, TOPICS, (3, 5), strict=True):
        assert {record.topic for record in await read(tier, count)} == {topic}
    await leave(tiers)
    assert [each.lost for each in moves] == [each.given for each in moves]
    assert log.cluster.members[GROUP] == []


async def test_a_tier_that_reads_no_more_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "AHEAD_RECORDS", 20)
    log = MemoryLog()
    first, second = tiers = await join(log)
    await put(log.cluster, "deferred.1s", 2000)
    await put(log.cluster, "deferred.60s", 5)
    assert len(await read(second, 5)) == 5
    (consumer,) = log.consumers
    assert consumer.paused == [TopicPartition("deferred.1s", 0)]
    assert consumer.lag() > 0, "what a tier has no room for stays in the log"
    second.pause([TopicPartition("deferred.60s", 0)])
    values = [record.value for record in await read(first, 2000)]
    assert values == [b"%d" % number for number in range(2000)]
    assert consumer.paused == [TopicPartition("deferred.60s", 0)]
    second.resume([TopicPartition("deferred.60s", 0)])
    assert consumer.paused == []
    await leave(tiers)


async def test_what_another_owns_by_now_is_not_given_out() -> None:
    cluster = MemoryCluster(partitions=2)
    await put(cluster, "deferred.1s", 40)
    first, second = await join(MemoryLog(cluster)), None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = await join(MemoryLog(cluster))
    halves = [{record.partition for record in await read(tiers[0], 1)} for tiers in (first, second)]
    assert halves == [{0}, {1}]
    await leave(first)
    await leave(second)


async def test_a_log_that_cannot_be_read_is_told_to_each_tier_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RETRY_SECONDS", 0.0)
    log = MemoryLog()
    tiers = await join(log)
    log.closed = True
    await put(log.cluster, "deferred.1s", 1)
    for tier in tiers:
        with pytest.raises(LogUnavailable):
            await tier.poll(1, 10.0)
    log.closed = False
    tiers[0].failure = None
    assert len(await read(tiers[0], 1)) == 1
    await leave(tiers)


async def test_who_cannot_join_says_so_for_all() -> None:
    log = MemoryLog()

    async def refused(*_: object, **__: object) -> None:
        raise LogUnavailable("no broker")

    log.consumer = refused  # type: ignore[method-assign,assignment]
    shared = Membership(cast("Log", log), TOPICS)
    calls = [shared.consumer([topic], GROUP) for topic in TOPICS]
    assert [str(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == ["no broker"] * 2
