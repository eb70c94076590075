"""The Kafka log while its broker is gone, stands still, or comes back; and the watchdog that ends a process that is stuck."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import LogUnavailable, TopicPartition
from postrail.log.kafka.watchdog import Watchdog
from postrail.log.progress import Progress
from tests.contract.log_contract import done, numbered, read, settled, values
from tests.support.kafka import KafkaBroker, KafkaCluster
from tests.support.kafka_log import kafka_config, kafka_log

FIRST = TopicPartition("accepted.bulk", 0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One broker that may be broken; each test leaves it whole."""
    with KafkaCluster(tmp_path_factory.mktemp("kafka"), brokers=1) as cluster:
        yield cluster


@pytest.fixture
def config(cluster: KafkaCluster, kafka_prefix: str) -> KafkaConfig:
    return kafka_config(cluster.bootstrap, kafka_prefix, delivery_timeout_seconds=3, session_timeout_seconds=6)


async def _started_again(cluster: KafkaCluster) -> None:
    await asyncio.to_thread(cluster.start)


async def test_appends_fail_in_time_while_the_broker_is_gone_and_work_again_when_it_is_back(
    cluster: KafkaCluster, config: KafkaConfig
) -> None:
    async with kafka_log(config) as log:
        consumer = await log.consumer(["accepted.bulk"], "sender")
        await log.append(numbered("accepted.bulk", 3))
        assert values(await read(consumer, 3)) == [b"0", b"1", b"2"]
        cluster.nodes[0].kill()
        for attempt in range(3):
            began = time.monotonic()
            with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1"):
                await log.append(numbered("lost", 1) if attempt == 2 else numbered("accepted.bulk", 1, start=100))
            assert time.monotonic() - began < 30
        assert log.problem() is not None
        assert await consumer.poll(10, 0.1) == []
        await _started_again(cluster)
        await _until_appended(log.append, 3)
        await log.transact([], [done("sender", 3)])
        found: list[bytes] = []
        while b"3" not in found:
            found += values(await consumer.poll(10, 1.0))
        assert found.count(b"3") == 1
        assert found.count(b"100") <= 2, "what was not acknowledged is there at most once for each try"
        await settled(lambda: log.problem() is None)
        assert (await log.committed("sender", ["accepted.bulk"]))[FIRST] == Progress(3)


async def _until_appended(append: object, number: int) -> None:
    for _ in range(60):
        try:
            await append(numbered("accepted.bulk", 1, start=number))  # type: ignore[operator]
            return
        except LogUnavailable:
            await asyncio.sleep(0.25)
    raise AssertionError("the broker is back, but nothing can be appended")


async def test_a_lease_runs_out_while_the_broker_stands_still(cluster: KafkaCluster, config: KafkaConfig) -> None:
    async with kafka_log(config) as log:
        consumer = await log.consumer(["accepted.bulk"], "sender")
        await consumer.poll(1, 0.0)
        assert consumer.lease_seconds() > 0
        cluster.nodes[0].signal(signal.SIGSTOP)
        try:
            await settled(lambda: consumer.lease_seconds() <= 0)
            assert log.problem() is not None
        finally:
            cluster.nodes[0].signal(signal.SIGCONT)
        await settled(lambda: consumer.lease_seconds() > 0 and list(consumer.assigned) == [FIRST])
        await _until_appended(log.append, 0)
        assert values(await read(consumer, 1)) == [b"0"]


async def test_nothing_opens_where_no_broker_is(kafka_prefix: str) -> None:
    with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1:9 cannot be reached"):
        async with kafka_log(kafka_config("127.0.0.1:9", kafka_prefix)):
            pass


async def test_a_dead_background_task_ends_the_process(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    reasons: list[str] = []
    async with kafka_log(kafka_config(kafka_broker.bootstrap, kafka_prefix), reasons.append) as log:
        consumer = await log.consumer(["accepted.bulk"], "sender")
        consumer.member.coordinator._coordination_task.cancel()
        await settled(lambda: bool(reasons))
        assert "group sender: the coordinator's task has ended" in reasons[0]


class Stubborn:
    """Something watched that makes no progress."""

    group = "sender"

    def stuck(self) -> str | None:
        return "nothing was fetched for 99 s"

    def dead(self) -> str | None:
        return None


@pytest.fixture
async def watchdogs() -> AsyncIterator[list[Watchdog]]:
    started: list[Watchdog] = []
    yield started
    for watchdog in started:
        await watchdog.close()


async def test_who_is_stuck_ends_and_who_waits_for_the_broker_does_not(watchdogs: list[Watchdog]) -> None:
    reachable = False
    reasons: list[str] = []

    async def answers(_: str) -> bool:
        return reachable

    stubborn = Stubborn()
    ticks: list[None] = []
    watchdog = Watchdog(0.5, lambda: [stubborn], answers, reasons.append, lambda: ticks.append(None))
    watchdogs.append(watchdog)
    watchdog.start()
    await settled(lambda: len(ticks) >= 3)
    assert reasons == [], "Kafka is down: that passes by itself"
    reachable = True
    await settled(lambda: bool(reasons))
    assert "nothing was fetched for 99 s, although the brokers answer" in reasons[0]


async def test_a_blocked_event_loop_ends_the_process(watchdogs: list[Watchdog]) -> None:
    reasons: list[str] = []

    async def answers(_: str) -> bool:
        return True

    watchdog = Watchdog(1.0, list, answers, reasons.append, lambda: None)
    watchdogs.append(watchdog)
    watchdog.start()
    await asyncio.sleep(0)
    time.sleep(3.5)  # noqa: ASYNC251  # it is what the test is about
    assert reasons
    assert "the event loop has not turned" in reasons[0]
