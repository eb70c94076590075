"""Senders that share a log: partitions change hands while mail is under way, and nothing is sent twice or left behind.

The log is the one in memory, so that a rebalance comes exactly where a test wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from postrail.core.config import Config
from postrail.core.identity import delivery_id, settlement
from postrail.core.records import Delivery, EventType
from postrail.core.topics import laned, outbound, outcomes
from postrail.log.interface import Append, Log, LogUnavailable, TopicPartition
from postrail.log.progress import Progress
from postrail.sender.outcomes import Outcomes
from postrail.sender.service import REPEATS
from postrail.wire import codec
from tests.support.memory_log import MemoryCluster, MemoryLog
from tests.support.scripted_smtp import ScriptedServer, scripted
from tests.support.sending import BODY, a_delivery, sender_config, sending, until

GROUP = "sender.default.default"
URGENT = laned(outbound("default", "default"), a_delivery(1).envelope.lane)
OUTCOMES = outcomes("default", "default")


def a_log(cluster: MemoryCluster) -> MemoryLog:
    log = MemoryLog(cluster)
    log.is_atomic = False
    log.shares_bodies = False
    return log


@contextlib.asynccontextmanager
async def a_sender(path: Path, log: MemoryLog, config: Config | None = None) -> AsyncIterator[Any]:
    async with sending(path, config or sender_config(path), log=cast("Log", log)) as made:
        yield made


async def put(cluster: MemoryCluster, *deliveries: Delivery) -> None:
    appends = []
    for delivery in deliveries:
        assert delivery.route is not None
        topic = laned(outbound("default", "default"), delivery.envelope.lane)
        appends.append(Append(topic, delivery.route.key, codec.encode_delivery(delivery), BODY))
    await MemoryLog(cluster).append(appends)


def finished(cluster: MemoryCluster) -> bool:
    return all(
        (progress := cluster.progress.get((GROUP, name))) is not None and progress.low >= len(stored)
        for name, stored in cluster.partitions.items()
        if name.topic.startswith("outbound.")
    )


def copies(server: ScriptedServer) -> Counter[str]:
    return Counter(recipient for taken in server.taken for recipient in taken.recipients)


async def until_taken(server: ScriptedServer, count: int) -> None:
    await until(lambda: server.messages >= count)


def events(cluster: MemoryCluster, kind: EventType) -> int:
    found = [codec.decode_event(record.value) for record in cluster.topics.get("events", [])]
    return sum(event.type is kind for event in found)


async def test_senders_that_come_and_go_send_each_message_once(tmp_path: Path) -> None:
    cluster = MemoryCluster(partitions=4)
    async with scripted() as server, contextlib.AsyncExitStack() as stack:
        sites = [f"site{number}.example.com" for number in range(12)]
        deliveries = [
            a_delivery(server.port, f"user{number}@example.com", site=sites[number % len(sites)])
            for number in range(600)
        ]
        await put(cluster, *deliveries)
        config = sender_config(tmp_path, default_limits={"connections": 3})
        first = contextlib.AsyncExitStack()
        await first.enter_async_context(a_sender(tmp_path, a_log(cluster), config))
        for taken in (100, 200, 300):
            await until_taken(server, taken)
            await stack.enter_async_context(a_sender(tmp_path, a_log(cluster), config))
        await until(lambda: server.messages >= 400)
        await first.aclose()
        await until(lambda: finished(cluster))
        assert events(cluster, EventType.DEFERRED) == 0
        assert len(copies(server)) == 600
        assert set(copies(server).values()) == {1}
        assert events(cluster, EventType.DELIVERED) == 600


async def test_a_transaction_before_its_dot_is_closed_and_the_next_owner_sends_the_message(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    async with scripted(data=["silence", "354 go"]) as server, a_sender(tmp_path, a_log(cluster)):
        await put(cluster, a_delivery(server.port, "one@example.com"))
        await until(lambda: server.sessions and "DATA" in server.sessions[0].lines)
        begun = time.monotonic()
        await cluster.rebalance(GROUP)
        assert time.monotonic() - begun < 1.0
        await until(lambda: finished(cluster))
        assert copies(server) == {"RCPT TO:<one@example.com>": 1}
        assert events(cluster, EventType.DEFERRED) == 0


async def test_a_transaction_past_its_dot_is_waited_for_and_committed(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    async with scripted(dot=["delay"]) as server, a_sender(tmp_path, a_log(cluster)):
        await put(cluster, a_delivery(server.port, "one@example.com"))
        await until(lambda: server.waiting)
        rebalance = asyncio.create_task(cluster.rebalance(GROUP))
        await asyncio.sleep(0.1)
        assert not rebalance.done()
        server.release.set()
        await rebalance
        assert cluster.progress[GROUP, TopicPartition(URGENT, 0)] == Progress(1)
        assert server.messages == 1
        assert events(cluster, EventType.DELIVERED) == 1


async def test_a_dot_that_is_never_answered_delays_a_rebalance_for_the_drain_time_only(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    config = sender_config(tmp_path, drain_seconds=0.3)
    async with scripted(dot=["silence", "250 ok"]) as server, a_sender(tmp_path, a_log(cluster), config):
        await put(cluster, a_delivery(server.port, "one@example.com"))
        await until(lambda: server.waiting)
        await asyncio.wait_for(cluster.rebalance(GROUP), 3)
        assert events(cluster, EventType.AMBIGUOUS) == 1
        assert finished(cluster)


async def test_what_waits_is_forgotten_and_sent_by_the_next_owner(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    slow = sender_config(tmp_path / "1", default_limits={"messages_per_second": 2})
    async with scripted() as server:
        async with a_sender(tmp_path, a_log(cluster), slow) as first:
            await put(cluster, *(a_delivery(server.port, f"user{number}@example.com") for number in range(50)))
            await until(lambda: server.messages >= 1)
        assert first.service._held == 0
        async with a_sender(tmp_path, a_log(cluster)):
            await until(lambda: finished(cluster))
        assert len(copies(server)) == 50
        assert set(copies(server).values()) == {1}


async def test_no_dot_is_sent_by_a_process_that_may_have_lost_the_partition(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    stale = a_log(cluster)
    async with scripted(data=["delay", "354 go"]) as server:
        async with a_sender(tmp_path, stale):
            await put(cluster, a_delivery(server.port, "one@example.com"))
            await until(lambda: server.waiting)
            stale.lease_seconds = 0.0
            server.release.set()
            await until(lambda: not server.open)
            assert server.messages == 0
            await asyncio.sleep(0.2)
            assert len(server.sessions) == 1
            stale.lease_seconds = 30.0
            await until(lambda: finished(cluster))
        assert server.messages == 1
        assert events(cluster, EventType.DEFERRED) == 0


async def test_a_large_message_gets_no_dot_either(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    stale = a_log(cluster)
    async with scripted() as server, a_sender(tmp_path, stale):
        delivery = a_delivery(server.port, "one@example.com")
        assert delivery.route is not None
        server.read_content_late = True
        body = (b"a" * 900 + b"\r\n") * 33_000
        await MemoryLog(cluster).append([Append(URGENT, delivery.route.key, codec.encode_delivery(delivery), body)])
        await until(lambda: server.waiting)
        stale.lease_seconds = -1.0
        server.release.set()
        await until(lambda: not server.open)
        assert server.messages == 0
        stale.lease_seconds = 30.0
        await until(lambda: finished(cluster))
        assert server.messages == 1


async def test_a_crash_before_the_commit_repeats_nothing_that_is_recorded(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    dying = a_log(cluster)

    async def lost(*_: object) -> None:
        raise LogUnavailable("the process dies before its commit")

    dying.transact = lost  # type: ignore[method-assign,assignment]
    before = REPEATS._value.get()
    config = sender_config(tmp_path, drain_seconds=0.2)
    async with scripted(rcpt=["250 ok", "450 later", "250 ok"]) as server:
        async with a_sender(tmp_path, dying, config):
            await put(cluster, *(a_delivery(server.port, f"user{number}@example.com") for number in range(3)))
            await until(lambda: OUTCOMES in cluster.topics)
            await dying.crash()
        sent = server.messages
        told = [codec.decode_finished(record.value) for record in cluster.topics[OUTCOMES]]
        assert (GROUP, TopicPartition(URGENT, 0)) not in cluster.progress
        async with a_sender(tmp_path, a_log(cluster)):
            await until(lambda: finished(cluster))
        recorded = sum(len(finished.offsets) for finished in told)
        assert recorded >= 1
        assert REPEATS._value.get() - before == recorded
        assert server.messages + events(cluster, EventType.DEFERRED) >= 3
        assert sent + 3 - recorded >= server.messages


async def test_what_stands_twice_in_the_log_is_sent_once(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    before = REPEATS._value.get()
    async with scripted() as server:
        delivery = a_delivery(server.port, "one@example.com")
        async with a_sender(tmp_path, a_log(cluster)):
            await put(cluster, delivery, delivery)
            await until(lambda: finished(cluster))
        async with a_sender(tmp_path, a_log(cluster)):
            await put(cluster, delivery, replace(delivery, parks=1))
            await until(lambda: finished(cluster))
    assert server.messages == 2
    assert REPEATS._value.get() - before == 2


def a_retry(delivery: Delivery) -> Delivery:
    """The record of the second attempt, as the first one's deferral leads to it."""
    envelope = delivery.envelope
    return replace(delivery, delivery_id=delivery_id(envelope.message_id, envelope.recipients, 2), attempts=1)


async def test_a_retry_is_not_needed_where_its_attempt_is_made_again(tmp_path: Path) -> None:
    """The first owner died when it had recorded the retry, and before it could say that the attempt was made."""
    cluster = MemoryCluster()
    attempts = [a_delivery(0, f"user{number}@example.com") for number in range(2)]
    async with scripted() as server:
        attempts = [replace(each, route=a_delivery(server.port).route) for each in attempts]
        await put(cluster, *attempts, a_retry(attempts[0]))  # one came back already
        async with a_sender(tmp_path, a_log(cluster)):
            await until(lambda: finished(cluster))
            await put(cluster, a_retry(attempts[1]))  # the other one comes now
            await until(lambda: finished(cluster))
        await put(cluster, *map(a_retry, attempts))  # a later owner knows it, too
        async with a_sender(tmp_path, a_log(cluster)):
            await until(lambda: finished(cluster))
    assert sorted(copies(server).values()) == [1, 1]


async def test_the_retry_of_an_attempt_that_is_put_off_again_is_made(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    async with scripted(dot=["450 later", "250 ok"]) as server:
        attempt = a_delivery(server.port, "one@example.com")
        await put(cluster, attempt, a_retry(attempt))
        async with a_sender(tmp_path, a_log(cluster)):
            await until(lambda: finished(cluster))
            assert events(cluster, EventType.DEFERRED) == 1
            await put(cluster, a_retry(attempt))
            await until(lambda: finished(cluster))
    assert server.messages == 1


async def test_the_retry_of_an_attempt_that_was_parked_in_between_is_made(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    async with scripted(dot=["450 later", "250 ok"]) as server:
        attempt = a_delivery(server.port, "one@example.com")
        async with a_sender(tmp_path, a_log(cluster)) as sender:
            await until(lambda: bool(sender.service._intakes[0].partitions))
            for partition in sender.service._intakes[0].partitions.values():  # it was inherited, and parked
                partition.ownership.repeats.begin(settlement(attempt.envelope.message_id, "one@example.com"), 0)
                partition.ownership.inherited_before = 0.0
            await put(cluster, replace(attempt, parks=1))
            await until(lambda: events(cluster, EventType.DEFERRED) == 1)
            await put(cluster, a_retry(attempt))
            await until(lambda: finished(cluster))
    assert server.messages == 1


async def test_a_new_owner_starts_with_nothing_saved_up(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    config = sender_config(tmp_path, default_limits={"messages_per_second": 20})
    async with scripted() as server, a_sender(tmp_path, a_log(cluster), config):
        await put(cluster, *(a_delivery(server.port, f"user{number}@example.com") for number in range(60)))
        for taken in (10, 20, 30):
            await until_taken(server, taken)
            await cluster.rebalance(GROUP)
        await until(lambda: finished(cluster))
    times = [taken.at for taken in server.taken]
    most = max(sum(start <= at < start + 1.0 for at in times) for start in times)
    assert len(times) == 60
    assert most <= 21, most


async def test_mail_is_kept_before_it_counts_as_finished(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    log = a_log(cluster)
    steps: list[str] = []
    append, transact = log.append, log.transact

    async def appending(appends: Any) -> Any:
        steps.append("+".join(sorted({entry.topic.split(".")[0] for entry in appends})))
        return await append(appends)

    async def committing(appends: Any, commits: Any) -> None:
        steps.append("commit")
        await transact(appends, commits)

    log.append, log.transact = appending, committing  # type: ignore[method-assign]
    async with scripted(rcpt=["450 later"]) as server, a_sender(tmp_path, log):
        await put(cluster, a_delivery(server.port, "one@example.com"))
        await until(lambda: finished(cluster))
    assert steps == ["deferred", "events+outcomes", "commit"]


async def test_an_outcome_that_comes_too_late_is_stored_and_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = MemoryCluster()
    log = a_log(cluster)
    stalled = asyncio.Event()
    append = log.append

    async def slow(appends: Any) -> Any:
        await stalled.wait()
        return await append(appends)

    log.append = slow  # type: ignore[method-assign]
    config = sender_config(tmp_path, drain_seconds=0.2)
    settled: list[bool] = []
    original = Outcomes.settled

    async def watched(self: Outcomes, *arguments: Any) -> bool:
        settled.append(await original(self, *arguments))
        return settled[-1]

    monkeypatch.setattr(Outcomes, "settled", watched)
    async with scripted() as server, a_sender(tmp_path, log, config):
        await put(cluster, a_delivery(server.port, "one@example.com"))
        await until(lambda: server.messages == 1)
        await cluster.rebalance(GROUP)
        assert settled == [False]
        assert (GROUP, TopicPartition(URGENT, 0)) not in cluster.progress
        stalled.set()
        await until(lambda: finished(cluster))
        assert server.messages == 1
        assert events(cluster, EventType.DELIVERED) == 1
