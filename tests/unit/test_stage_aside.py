"""The line of records that wait for what a stage needs: when they are tried, and where they go when it is still not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from postrail.log.interface import Append, Record, TopicPartition
from postrail.log.progress import Progress
from postrail.shell import stage_aside as aside_module
from postrail.shell import stage_commits as commits_module
from postrail.shell.context import Context
from postrail.shell.stage import Handle, NotReady
from postrail.shell.stage_aside import Aside
from tests.support.memory_log import MemoryLog

DELAY_SECONDS = 0.05
ASIDE = TopicPartition("aside", 0)


def on(log: MemoryLog, handle: Handle) -> Aside:
    context = cast("Context", SimpleNamespace(log=log, clock=lambda: 10.0))
    return Aside("unit", context, "aside", "unit", handle, DELAY_SECONDS)


async def filled(count: int, appended_at: float) -> MemoryLog:
    log = MemoryLog()
    await log.append([Append("aside", b"k%d" % number, b"v%d" % number, b"body") for number in range(count)])
    for record in log.topics["aside"]:
        record.appended_at = appended_at
    return log


def pass_on(record: Record) -> list[Append]:
    return [Append("out", record.key, record.value, record.body)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the loop under test has no event for every state
            await asyncio.sleep(0)


async def test_what_has_waited_is_handled_in_order() -> None:
    log = await filled(5, appended_at=9.0)
    aside = on(log, pass_on)
    await aside.start()
    await until(lambda: log.progress.get(("unit", ASIDE)) == Progress(5))
    assert aside.problem() is None
    await aside.drain()
    assert [record.value for record in log.topics["out"]] == [b"v0", b"v1", b"v2", b"v3", b"v4"]


async def test_nothing_is_tried_before_its_time_and_little_is_held_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "AHEAD_RECORDS", 2)
    log = await filled(5, appended_at=10.0)
    tried: list[bytes] = []

    def handle(record: Record) -> list[Append]:
        tried.append(record.value)
        return pass_on(record)

    aside = on(log, handle)
    await aside.start()
    await until(lambda: log.consumers[0].lag() == 3)
    for _ in range(200):
        await asyncio.sleep(0)
    assert log.consumers[0].lag() == 3
    assert tried == []
    await aside.drain()
    assert ("unit", ASIDE) not in log.progress


@pytest.mark.parametrize("later", [False, True])
async def test_what_still_cannot_be_handled_goes_to_the_end(later: bool) -> None:
    log = await filled(3, appended_at=9.0)

    async def soon(record: Record) -> Sequence[Append]:
        await asyncio.sleep(0)
        if record.value == b"v1":
            raise NotReady(0, "no key")
        return pass_on(record)

    def handle(record: Record) -> Sequence[Append] | Awaitable[Sequence[Append]]:
        if later:
            return soon(record)
        if record.value == b"v1":
            raise NotReady(0, "no key")
        return pass_on(record)

    aside = on(log, handle)
    await aside.start()
    await until(lambda: log.progress.get(("unit", ASIDE)) == Progress(3))
    await aside.drain()
    assert sorted(record.value for record in log.topics["out"]) == [b"v0", b"v2"]
    again = log.topics["aside"][3]
    assert (again.key, again.value) == (b"k1", b"v1")
    assert again.body is not None
    assert await again.body.load() == b"body"


async def test_a_loop_that_died_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    log = await filled(1, appended_at=9.0)
    aside = on(log, pass_on)
    monkeypatch.setattr(commits_module, "Commit", None)
    await aside.start()
    await until(aside.problem)
    assert "unit-commit has stopped" in (aside.problem() or "")
    await aside.drain()
