"""The scheduler on a real log: deferrals come back when they are due, once each, whatever happens in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postrail.core.topics import DEAD_LETTERS
from postrail.log.interface import Append
from postrail.scheduler.service import SchedulerService
from postrail.scheduler.window import MAX_RECORDS
from postrail.wire import codec
from tests.support.stage_setting import BODY, Setting, deferral, message_id, setting

RETRY = {"retry": {"tiers_seconds": [1, 60], "delays_seconds": [1]}}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Setting]:
    async with setting(tmp_path, delivery=RETRY) as made:
        yield made


async def test_deferral_comes_back_when_it_is_due_and_not_before(stage: Setting) -> None:
    service = SchedulerService(stage.context)
    await service.start()
    due_at = time.time() + 0.8
    await stage.put("deferred.1s", deferral(due_at), key=b"the-key")
    (record,) = await stage.taken("due.urgent", 1)
    assert due_at <= record.appended_at < due_at + 5
    assert record.key == b"the-key"
    assert record.body is not None
    assert await record.body.load() == BODY
    assert codec.decode_delivery(record.value).attempts == 1
    assert service.problem() is None
    await service.drain()


async def test_what_is_overdue_comes_at_once_and_in_due_order(stage: Setting) -> None:
    now = time.time()
    for number, age in enumerate((50.0, 3000.0, 100_000.0)):
        await stage.put("deferred.60s", deferral(now - age, number))
    service = SchedulerService(stage.context)
    await service.start()
    found = await stage.deliveries("due.urgent", 3)
    assert [item.envelope.message_id for item in found] == [message_id(2), message_id(1), message_id(0)]
    await service.drain()


async def test_mail_in_a_tier_that_the_configuration_has_no_more_comes_back_too(stage: Setting) -> None:
    await stage.put("deferred.7.5s", deferral(time.time() - 1.0, 1))
    service = SchedulerService(stage.context)
    await service.start()
    (found,) = await stage.deliveries("due.urgent", 1)
    assert found.envelope.message_id == message_id(1)
    await service.drain()


async def test_later_record_that_is_due_earlier_does_not_wait_for_the_first(stage: Setting) -> None:
    await stage.put("deferred.60s", deferral(time.time() + 60.0, 1))
    await stage.put("deferred.60s", deferral(time.time() + 0.3, 2))
    service = SchedulerService(stage.context)
    await service.start()
    (found,) = await stage.deliveries("due.urgent", 1)
    assert found.envelope.message_id == message_id(2)
    await service.drain()


async def test_restart_forgets_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    async with setting(tmp_path, delivery=RETRY) as stage:
        await stage.put("deferred.60s", deferral(time.time() + 60.0, 1))
        await stage.put("deferred.60s", deferral(time.time() - 1.0, 2))
        service = SchedulerService(stage.context)
        await service.start()
        await stage.deliveries("due.urgent", 1)
        await service.drain()
    async with setting(tmp_path, delivery=RETRY) as stage:
        stage.clock.offset = 61.0
        service = SchedulerService(stage.context)
        await service.start()
        found = await stage.deliveries("due.urgent", 2)
        await service.drain()
    assert [item.envelope.message_id for item in found] == [message_id(2), message_id(1)]


async def test_more_than_the_window_comes_back_once_each(stage: Setting) -> None:
    total = 3 * MAX_RECORDS
    now = time.time()
    await stage.log.append(
        [
            Append("deferred.1s", b"key", deferral(now - 10.0 if number % 3 else now + 0.9, number), BODY)
            for number in range(total)
        ]
    )
    service = SchedulerService(stage.context)
    await service.start()
    found = await stage.deliveries("due.urgent", total)
    assert sorted(item.envelope.message_id for item in found) == sorted(message_id(number) for number in range(total))
    await service.drain()


async def test_clock_that_is_set_back_does_no_harm(stage: Setting) -> None:
    service = SchedulerService(stage.context)
    await service.start()
    await stage.put("deferred.1s", deferral(time.time() + 0.9, 1))
    await asyncio.sleep(0.3)
    stage.clock.offset = -7200.0
    await stage.put("deferred.1s", deferral(time.time() - 7200.0 + 0.9, 2))
    found = await stage.deliveries("due.urgent", 2)
    assert {item.envelope.message_id for item in found} == {message_id(1), message_id(2)}
    await service.drain()


async def test_record_that_cannot_be_read_becomes_a_dead_letter(stage: Setting) -> None:
    await stage.put("deferred.1s", b"\xff nonsense")
    await stage.put("deferred.1s", deferral(time.time(), 1))
    service = SchedulerService(stage.context)
    await service.start()
    await stage.deliveries("due.urgent", 1)
    (letter,) = await stage.taken(DEAD_LETTERS, 1)
    assert codec.decode_dead_letter(letter.value).value == b"\xff nonsense"
    await service.drain()


async def test_tier_of_the_defaults_is_read_though_others_are_configured(stage: Setting) -> None:
    await stage.put("deferred.900s", deferral(time.time() - 5.0))
    service = SchedulerService(stage.context)
    await service.start()
    await stage.deliveries("due.urgent", 1)
    await service.drain()
