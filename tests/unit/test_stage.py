"""The stage loop against a log in memory: order, failures of the log, poison, records kept back, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postrail.core import topics
from postrail.log.interface import Append, Body, LogError, LogFull, LogUnavailable, Record, TopicPartition
from postrail.log.progress import Progress
from postrail.shell import stage as stage_module
from postrail.shell import stage_commits as commits_module
from postrail.shell import storing
from postrail.shell.context import Context
from postrail.shell.stage import Handle, NotReady, Stage
from postrail.wire.codec import decode_dead_letter
from tests.support.memory_log import MemoryLog

IN = TopicPartition("in", 0)


def on(log: MemoryLog, handle: Handle, **options: Any) -> Stage:
    context = cast("Context", SimpleNamespace(log=log, clock=lambda: 1_800_000_000.0))
    return Stage("unit", context, ["in"], "unit", handle, poison_delays_seconds=(0, 0), **options)


def pass_on(record: Record) -> list[Append]:
    return [Append("out", record.key, record.value, record.body)]


async def filled(count: int) -> MemoryLog:
    log = MemoryLog()
    await log.append([Append("in", b"k%d" % number, b"v%d" % number, b"body") for number in range(count)])
    return log


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the loop under test has no event for every state
            await asyncio.sleep(0)


def values(log: MemoryLog, topic: str = "out") -> list[bytes]:
    return [record.value for record in log.topics.get(topic, [])]


async def test_outputs_come_in_order_with_body_and_the_inputs_are_committed() -> None:
    log = await filled(7)
    stage = on(log, pass_on, batch=3)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(7))
    await stage.drain()
    assert values(log) == [b"v%d" % number for number in range(7)]
    assert log.topics["out"][0].body is log.topics["in"][0].body
    assert log.stores <= 1 + 3


async def test_the_next_batch_is_handled_while_the_transaction_is_under_way() -> None:
    log = await filled(4)
    allowed = asyncio.Event()
    transact = log.transact

    async def slow(*arguments: object) -> None:
        await allowed.wait()
        await transact(*arguments)  # type: ignore[arg-type]

    log.transact = slow  # type: ignore[method-assign,assignment]
    handled: list[bytes] = []

    def handle(record: Record) -> list[Append]:
        handled.append(record.value)
        return pass_on(record)

    stage = on(log, handle, batch=2)
    await stage.start()
    await until(lambda: len(handled) == 4)
    assert values(log) == []
    assert ("unit", IN) not in log.progress
    allowed.set()
    await stage.drain()
    assert values(log) == [b"v0", b"v1", b"v2", b"v3"]
    assert log.progress["unit", IN] == Progress(4)


@pytest.mark.parametrize("error", [LogFull("full"), LogUnavailable("away"), RuntimeError("unforeseen")])
async def test_a_failing_log_keeps_the_batch(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LOG_RETRY_SECONDS", (0, 0))
    log = await filled(3)
    log.fail_next = [error, error]
    stage = on(log, pass_on)
    await stage.start()
    await until(lambda: ("unit", IN) in log.progress)
    await stage.drain()
    assert values(log) == [b"v0", b"v1", b"v2"]
    assert log.fail_next == []


async def test_a_log_that_stays_full_is_reported_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LOG_RETRY_SECONDS", (0, 0))
    monkeypatch.setattr(stage_module, "NO_PROGRESS_SECONDS", 0)
    monkeypatch.setattr(commits_module, "DRAIN_SECONDS", 0)
    log = await filled(2)
    log.fail_next = [LogFull("disk full")] * 100_000
    stage = on(log, pass_on)
    await stage.start()
    await until(lambda: len(log.fail_next) < 99_990)
    assert "disk full" in (stage.problem() or "")
    await stage.drain()
    log.fail_next = []
    again = on(log, pass_on)
    await again.start()
    await until(lambda: ("unit", IN) in log.progress)
    await again.drain()
    assert values(log) == [b"v0", b"v1"]


async def test_poison_goes_to_dead_letters_after_three_tries_and_stops_nothing() -> None:
    log = await filled(3)
    tries = 0

    def handle(record: Record) -> list[Append]:
        nonlocal tries
        if record.value == b"v1":
            tries += 1
            raise KeyError("broken")
        return pass_on(record)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(3))
    await stage.drain()
    assert tries == 3
    assert values(log) == [b"v0", b"v2"]
    (dead,) = log.topics[topics.DEAD_LETTERS]
    letter = decode_dead_letter(dead.value)
    assert (letter.topic, letter.offset, letter.key, letter.value) == ("in", 1, b"k1", b"v1")
    assert (letter.stage, letter.tries, letter.failed_at) == ("unit", 3, 1_800_000_000.0)
    assert "broken" in letter.reason
    assert dead.body is not None
    assert await dead.body.load() == b"body"


async def test_an_output_that_is_too_large_waits_alone_and_is_stored_once_it_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits_module, "TOO_LARGE_RETRY_SECONDS", 0.01)
    log = await filled(4)
    log.is_atomic, log.max_bytes = False, 100
    handled = 0

    def handle(record: Record) -> list[Append]:
        nonlocal handled
        handled += 1
        copy = Append("copies", record.key, record.value)
        return [copy, *([Append("out", record.key, bytes(101))] if record.value == b"v1" else pass_on(record))]

    stage = on(log, handle)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(1, frozenset({2, 3})))
    assert values(log) == [b"v0", b"v2", b"v3"]
    await asyncio.sleep(0.05)
    assert stage.problem() is None
    log.max_bytes = 101
    await until(lambda: log.progress.get(("unit", IN)) == Progress(4))
    await stage.drain()
    assert values(log)[3:] == [bytes(101)]
    assert values(log, "copies") == [b"v0", b"v1", b"v2", b"v3"], "what was stored is not appended again"
    assert handled == 4


async def test_what_is_too_large_when_a_stage_ends_is_left_to_the_next() -> None:
    log = await filled(2)
    log.is_atomic, log.max_bytes = False, 1
    stage = on(log, lambda record: pass_on(record) if record.value == b"v1" else [])
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(1))
    await stage.drain()
    log.max_bytes = 2
    following = on(log, pass_on)
    await following.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(2))
    await following.drain()
    assert values(log) == [b"v1"]


async def test_a_dead_letter_is_little_larger_than_its_record_whatever_the_exception_quotes() -> None:
    log = await filled(1)

    def handle(record: Record) -> list[Append]:
        raise ValueError("x" * 3_000_000)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(1))
    await stage.drain()
    (dead,) = log.topics[topics.DEAD_LETTERS]
    assert len(dead.value) < 3000
    assert decode_dead_letter(dead.value).reason.startswith("ValueError: xxx")


@pytest.mark.parametrize("error", [NotReady(0, "later"), LogError("cannot read the body")])
async def test_what_is_not_ready_waits_as_long_as_it_takes(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "LOG_RETRY_SECONDS", (0, 0))
    log = await filled(3)
    asked = 0
    ready = False

    def handle(record: Record) -> list[Append]:
        nonlocal asked
        if record.value == b"v0" and not ready:
            asked += 1
            raise error
        return pass_on(record)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: asked > 10 and len(values(log)) == 2)
    assert log.progress["unit", IN] == Progress(0, frozenset({1, 2}))
    ready = True
    await until(lambda: log.progress["unit", IN] == Progress(3))
    await stage.drain()
    assert values(log) == [b"v1", b"v2", b"v0"]
    assert topics.DEAD_LETTERS not in log.topics


async def test_a_slow_awaitable_delays_nobody() -> None:
    log = await filled(3)
    answer = asyncio.Event()

    async def slow(record: Record) -> Sequence[Append]:
        await answer.wait()
        return pass_on(record)

    def handle(record: Record) -> Awaitable[Sequence[Append]] | Sequence[Append]:
        return slow(record) if record.value == b"v0" else pass_on(record)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(0, frozenset({1, 2})))
    answer.set()
    await until(lambda: log.progress["unit", IN] == Progress(3))
    await stage.drain()
    assert values(log) == [b"v1", b"v2", b"v0"]


async def test_an_awaitable_can_be_poison() -> None:
    log = await filled(1)

    async def handle(record: Record) -> Sequence[Append]:
        raise ValueError("broken")

    stage = on(log, handle)
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(1))
    await stage.drain()
    assert len(values(log, topics.DEAD_LETTERS)) == 1


async def test_drain_leaves_unfinished_records_for_the_next_consumer_and_repeats_no_finished_one() -> None:
    log = await filled(5)

    def handle(record: Record) -> list[Append]:
        if record.value in {b"v0", b"v3"}:
            raise NotReady(3600, "later")
        return pass_on(record)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: len(values(log)) == 3)
    await stage.drain()
    assert log.progress["unit", IN] == Progress(0, frozenset({1, 2, 4}))

    def second_handle(record: Record) -> list[Append]:
        if record.value == b"v0":
            raise NotReady(3600, "later")
        return pass_on(record)

    second = on(log, second_handle)
    await second.start()
    await until(lambda: len(values(log)) == 4)
    await second.drain()
    assert log.progress["unit", IN] == Progress(0, frozenset({1, 2, 3, 4}))

    third = on(log, pass_on)
    await third.start()
    await until(lambda: len(values(log)) == 5)
    await third.drain()
    assert values(log) == [b"v1", b"v2", b"v4", b"v3", b"v0"]
    assert log.progress["unit", IN] == Progress(5)


async def test_nothing_new_is_polled_while_too_many_are_kept_back() -> None:
    log = await filled(20)
    ready = False

    def handle(record: Record) -> list[Append]:
        if not ready:
            raise NotReady(0, "later")
        return pass_on(record)

    stage = on(log, handle, batch=2, kept_back=4)
    await stage.start()
    await until(lambda: log.consumers[0].lag() == 16)
    for _ in range(200):
        await asyncio.sleep(0)
    assert log.consumers[0].lag() == 16
    ready = True
    await until(lambda: log.progress.get(("unit", IN)) == Progress(20))
    await stage.drain()
    assert sorted(values(log)) == sorted(b"v%d" % number for number in range(20))


async def test_a_partition_is_paused_while_its_commit_would_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits_module, "SAFE_SPREAD", 2)
    monkeypatch.setattr(commits_module, "STOP_FETCHING_AT_BYTES", 8)
    log = await filled(10)
    ready = False

    def handle(record: Record) -> list[Append]:
        if record.value == b"v0" and not ready:
            raise NotReady(0, "later")
        return pass_on(record)

    stage = on(log, handle, batch=5)
    await stage.start()
    await until(lambda: log.consumers[0].paused == [IN])
    ready = True
    await until(lambda: log.consumers[0].paused == [])
    await until(lambda: log.progress.get(("unit", IN)) == Progress(10))
    await stage.drain()


async def test_a_revoked_partition_is_committed_first_and_its_late_results_are_dropped() -> None:
    log = await filled(2)
    answer = asyncio.Event()

    async def slow(record: Record) -> Sequence[Append]:
        await answer.wait()
        return pass_on(record)

    def handle(record: Record) -> Awaitable[Sequence[Append]] | Sequence[Append]:
        return slow(record) if record.value == b"v0" else pass_on(record)

    stage = on(log, handle)
    await stage.start()
    await until(lambda: len(values(log)) == 1)
    await log.consumers[0].close()
    answer.set()
    await stage.drain()
    assert values(log) == [b"v1"]
    assert log.progress["unit", IN] == Progress(0, frozenset({1}))


async def test_no_problem_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "NO_PROGRESS_SECONDS", 0)
    stage = on(MemoryLog(), pass_on)
    assert stage.problem() is None
    await stage.start()
    assert stage.problem() is None
    await stage.drain()


async def test_a_loop_that_died_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    log = await filled(1)
    stage = on(log, pass_on)
    monkeypatch.setattr(commits_module, "Commit", None)
    await stage.start()
    await until(stage.problem)
    assert "unit-commit has stopped" in (stage.problem() or "")
    await stage.drain()
    assert ("unit", IN) not in log.progress


async def test_what_is_not_ready_is_set_aside_once_half_the_room_is_taken() -> None:
    log = await filled(20)

    def handle(record: Record) -> list[Append]:
        if int(record.value[1:]) % 2:
            raise NotReady(3600, "no key")
        return pass_on(record)

    stage = on(log, handle, kept_back=6, aside="aside")
    await stage.start()
    await until(lambda: len(values(log)) == 10 and len(values(log, "aside")) == 7)
    await stage.drain()
    assert values(log, "aside") == [b"v%d" % number for number in range(7, 20, 2)]
    assert log.topics["aside"][0].key == b"k7"
    assert await cast("Body", log.topics["aside"][0].body).load() == b"body"
    assert log.progress["unit", IN] == Progress(1, frozenset(range(2, 20)) - {3, 5})


async def test_what_holds_back_the_commits_is_set_aside_at_its_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "ASIDE_SPREAD", 5)
    log = await filled(3)

    def handle(record: Record) -> list[Append]:
        if record.value == b"v0":
            raise NotReady(0, "no key")
        return pass_on(record)

    stage = on(log, handle, aside="aside")
    await stage.start()
    await until(lambda: log.progress.get(("unit", IN)) == Progress(0, frozenset({1, 2})))
    for _ in range(200):
        await asyncio.sleep(0)
    assert "aside" not in log.topics
    await log.append([Append("in", b"key", b"v%d" % number) for number in range(3, 8)])
    await until(lambda: log.progress.get(("unit", IN)) == Progress(8))
    await stage.drain()
    assert values(log, "aside") == [b"v0"]
