"""A tier's reader against a log that fails and recovers."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import cast

from postrail.log.interface import Append, LogFull, LogUnavailable, TopicPartition
from postrail.log.progress import Progress
from postrail.scheduler.tier import TierReader
from postrail.shell.context import Context
from tests.support.memory_log import MemoryLog
from tests.support.stage_setting import deferral


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
