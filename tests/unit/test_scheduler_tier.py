"""A tier's reader against a log that fails and recovers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import REGISTRY

from postrail.core.records import Deferred
from postrail.log.interface import Append, LogFull, LogUnavailable, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.scheduler import tier as tier_module
from postrail.scheduler.tier import TierReader
from postrail.scheduler.window import Waiting
from postrail.shell.context import Context
from postrail.wire import codec
from tests.support.memory_log import MemoryLog
from tests.support.stage_setting import deferral, delivery, eventually


async def test_log_that_takes_nothing_is_tried_until_it_does() -> None:
    log = MemoryLog()
    await log.append(
        [Append("deferred.1s", b"key", deferral(time.time() - 1.0, number), b"body") for number in range(3)]
    )
    log.fail_next = [LogFull("no room"), LogUnavailable("gone"), RuntimeError("a defect")]
    reader = TierReader(cast("Context", SimpleNamespace(log=log, clock=time.time)), 1.0)
    await reader.start()
    async with asyncio.timeout(20):
        while "due.urgent" not in log.topics:  # noqa: ASYNC110  # the log in memory has no event for this
            await asyncio.sleep(0.01)
    await reader.drain()
    assert len(log.topics["due.urgent"]) == 3
    assert log.progress["scheduler", TopicPartition("deferred.1s", 0)] == Progress(3)
    assert log.stores == 2


async def test_what_is_too_large_waits_alone_and_goes_once_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier_module, "TOO_LARGE_RETRY_SECONDS", 0.05)
    log, where = MemoryLog(), TopicPartition("deferred.1s", 0)
    recipients = [f"someone-{number}@example.com" for number in range(100)]
    long = codec.encode_deferred(Deferred(delivery(*recipients), time.time() - 2.0, time.time() - 1.0, "busy"))
    short = deferral(time.time() - 1.0, 1)
    assert len(short) < 1000 < len(long)
    await log.append([Append("deferred.1s", b"key", value, b"body") for value in (short, long, short)])
    log.is_atomic, log.max_bytes = False, 1000
    reader = TierReader(cast("Context", SimpleNamespace(log=log, clock=time.time)), 1.0)
    await reader.start()
    await eventually(lambda: log.progress.get(("scheduler", where)) == Progress(1, frozenset({2})))
    await asyncio.sleep(0.1)
    assert len(log.topics["due.urgent"]) == 2
    log.max_bytes = 10_000
    await eventually(lambda: log.progress["scheduler", where] == Progress(3))
    await reader.drain()
    assert len(log.topics["due.urgent"]) == 3


@pytest.mark.parametrize("is_atomic", [True, False])
async def test_what_others_own_by_now_is_theirs_to_hand_back(is_atomic: bool) -> None:
    log = MemoryLog()
    log.is_atomic = is_atomic
    reader = TierReader(cast("Context", SimpleNamespace(log=log, clock=time.time)), 1.0)
    kept, gone = TopicPartition("deferred.1s", 0), TopicPartition("deferred.1s", 1)
    reader._trackers[kept] = Tracker(0)
    reader._trackers[kept].start(0)
    due = [
        Waiting(0.0, 0, 0.0, where, 0, Append("due.urgent", b"k", b"%d" % where.partition), 0.0)
        for where in (kept, gone)
    ]
    await reader._store(due)
    assert [record.value for record in log.topics["due.urgent"]] == [b"0"]
    assert log.progress == {("scheduler", kept): Progress(1)}


@pytest.mark.parametrize(("parks", "late_seconds"), [(0, 5.0), (1, 0.0)])
async def test_what_is_parked_until_its_turn_is_late_only_after_the_end_of_its_tier(
    parks: int, late_seconds: float
) -> None:
    log, tier = MemoryLog(), 60.0 + parks
    name = "postrail_scheduler_lag_seconds_sum"
    now = time.time()
    waiting = Deferred(replace(delivery(), parks=parks), now - 10.0, now - 5.0, "busy")
    await log.append([Append(f"deferred.{tier:g}s", b"key", codec.encode_deferred(waiting), b"body")])
    reader = TierReader(cast("Context", SimpleNamespace(log=log, clock=time.time)), tier)
    await reader.start()
    async with asyncio.timeout(20):
        while "due.urgent" not in log.topics:  # noqa: ASYNC110  # the log in memory has no event for this
            await asyncio.sleep(0.01)
    await reader.drain()
    assert REGISTRY.get_sample_value(name, {"tier": f"{tier:g}"}) == pytest.approx(late_seconds, abs=3.0)
