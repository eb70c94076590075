"""Stages of several processes on one log: what comes and goes while they work is passed on once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from postrail.log.interface import Append, LogUnavailable, Record
from postrail.scheduler.tier import TierReader
from postrail.shell import assignment
from postrail.shell.context import Context
from postrail.shell.stage import NotReady, Stage
from tests.support.memory_log import MemoryCluster, MemoryLog
from tests.support.stage_setting import deferral

COUNT = 300


def a_log(cluster: MemoryCluster) -> MemoryLog:
    log = MemoryLog(cluster)
    log.is_atomic = False
    return log


async def slowly(record: Record) -> Sequence[Append]:
    for _ in range(int(record.value[1:]) % 7):
        await asyncio.sleep(0)
    return [Append("out", record.key, record.value)]


class Handler:
    """Some records at once, some slowly, some only at the second try."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, record: Record) -> Awaitable[Sequence[Append]] | Sequence[Append]:
        number = int(record.value[1:])
        if number % 5 == 0 and record.value not in self._seen:
            self._seen.add(record.value)
            raise NotReady(0, "later")
        return slowly(record) if number % 3 == 0 else [Append("out", record.key, record.value)]


async def a_stage(log: MemoryLog, batch: int = 10) -> Stage:
    context = cast("Context", SimpleNamespace(log=log, clock=time.time))
    stage = Stage("unit", context, ["in"], "unit", Handler(), batch=batch)
    await stage.start()
    return stage


async def filled(cluster: MemoryCluster) -> None:
    log = MemoryLog(cluster)
    await log.append([Append("in", b"k%d" % number, b"v%d" % number) for number in range(COUNT)])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the loop under test has no event for every state
            await asyncio.sleep(0)


def copies(cluster: MemoryCluster, topic: str = "out") -> Counter[bytes]:
    return Counter(record.value for record in cluster.topics.get(topic, []))


async def until_copied(cluster: MemoryCluster, count: int, topic: str = "out") -> None:
    await until(lambda: len(cluster.topics.get(topic, [])) >= count)


def finished(cluster: MemoryCluster, group: str, topic: str) -> bool:
    return all(
        (group, name) in cluster.progress and cluster.progress[group, name].low >= len(stored)
        for name, stored in cluster.partitions.items()
        if name.topic == topic
    )


async def test_members_that_come_and_go_pass_each_record_on_once() -> None:
    cluster = MemoryCluster(partitions=8)
    await filled(cluster)
    stages = [await a_stage(a_log(cluster))]
    for done in (40, 80, 120, 160):
        await until_copied(cluster, done)
        stages.append(await a_stage(a_log(cluster)))
    for done in (200, 240):
        await until_copied(cluster, done)
        await stages.pop(0).drain()
    await until(lambda: finished(cluster, "unit", "in"))
    for stage in stages:
        await stage.drain()
    assert copies(cluster) == {b"v%d" % number: 1 for number in range(COUNT)}


async def test_a_member_that_dies_repeats_only_what_it_had_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postrail.shell.stage_commits.DRAIN_SECONDS", 0)
    cluster = MemoryCluster(partitions=4)
    await filled(cluster)
    dying = a_log(cluster)
    first, second = await a_stage(dying), await a_stage(a_log(cluster))
    await until_copied(cluster, 100)
    await dying.crash()
    await until(lambda: finished(cluster, "unit", "in"))
    await second.drain()
    await first.drain()
    found = copies(cluster)
    assert found.keys() == {b"v%d" % number for number in range(COUNT)}
    assert sum(found.values()) - COUNT <= 20


async def test_a_commit_that_fails_is_tried_again_without_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postrail.shell.storing.LOG_RETRY_SECONDS", (0, 0))
    cluster = MemoryCluster()
    log = a_log(cluster)
    transact, refused = log.transact, 0

    async def refusing(*arguments: object) -> None:
        nonlocal refused
        refused += 1
        if refused < 4:
            raise LogUnavailable("the coordinator is moving")
        await transact(*arguments)  # type: ignore[arg-type]

    log.transact = refusing  # type: ignore[method-assign,assignment]
    await log.append([Append("in", b"k", b"v1")])
    stage = await a_stage(log)
    await until(lambda: finished(cluster, "unit", "in"))
    await stage.drain()
    assert copies(cluster) == {b"v1": 1}


async def test_an_assignment_waits_until_the_log_says_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "RETRY_SECONDS", (0, 0))
    cluster = MemoryCluster()
    log = a_log(cluster)
    await log.append([Append("in", b"k", b"v1")])
    committed, asked = log.committed, 0

    async def failing(*arguments: object) -> object:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise LogUnavailable("the coordinator is moving")
        return await committed(*arguments)  # type: ignore[arg-type]

    log.committed = failing  # type: ignore[method-assign,assignment]
    stage = await a_stage(log)
    await until(lambda: finished(cluster, "unit", "in"))
    await stage.drain()
    assert asked == 3


async def test_tiers_that_come_and_go_hand_each_delivery_back_once() -> None:
    cluster = MemoryCluster(partitions=6)
    start = time.time()
    await MemoryLog(cluster).append(
        [Append("deferred.1s", b"k%d" % number, deferral(start + number / 1000, number)) for number in range(COUNT)]
    )
    readers = []
    for done in (1, 60, 120):
        context = cast("Context", SimpleNamespace(log=a_log(cluster), clock=time.time))
        readers.append(TierReader(context, 1.0))
        await readers[-1].start()
        await until_copied(cluster, done, "due.urgent")
    await readers.pop(0).drain()
    await until(lambda: finished(cluster, "scheduler", "deferred.1s"))
    for reader in readers:
        await reader.drain()
    assert len(copies(cluster, "due.urgent")) == COUNT
    assert set(copies(cluster, "due.urgent").values()) == {1}
