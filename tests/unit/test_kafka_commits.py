"""When a member of a Kafka group commits: seldom while it works, and before it gives partitions up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from aiokafka.errors import NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.interface import TopicPartition
from postrail.log.kafka.commits import Commits
from postrail.log.kafka.coordinator import Coordinator
from postrail.log.progress import Progress

FIRST, SECOND = (TopicPartition("accepted.bulk", number) for number in range(2))
LONG_SECONDS = 3600.0


class Broker:
    """The group's coordinator, on the other side of the network."""

    def __init__(self) -> None:
        self.requests: list[dict[int, int]] = []
        self.refusals: list[Exception] = []

    async def commit(self, offsets: Mapping[KafkaPartition, OffsetAndMetadata], _: float) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.pop(0)
        self.requests.append({where.partition: value.offset for where, value in offsets.items()})


def commits_to(broker: Broker, interval_seconds: float, *owned: TopicPartition) -> Commits:
    return Commits("signing", cast("Coordinator", broker), str, lambda: owned, interval_seconds)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_is_stored_at_once_and_those_after_it_together() -> None:
    broker = Broker()
    commits = commits_to(broker, LONG_SECONDS, FIRST, SECOND)
    for low in range(1, 4):
        await commits.commit({FIRST: Progress(low)})
        await turn()
    await commits.commit({SECOND: Progress(9)})
    assert broker.requests == [{0: 1}]
    await commits.flush()
    assert broker.requests == [{0: 1}, {0: 3, 1: 9}]
    await commits.flush()
    assert len(broker.requests) == 2, "nothing is left"


async def test_they_are_stored_after_the_interval_though_nobody_waits() -> None:
    broker = Broker()
    commits = commits_to(broker, 0.01, FIRST)
    async with asyncio.timeout(10):
        for low in (1, 2):
            await commits.commit({FIRST: Progress(low)})
            while {0: low} not in broker.requests:
                await turn()
    assert broker.requests == [{0: 1}, {0: 2}]


async def test_without_an_interval_each_is_waited_for() -> None:
    broker = Broker()
    commits = commits_to(broker, 0.0, FIRST)
    for low in (1, 2):
        await commits.commit({FIRST: Progress(low)})
    assert broker.requests == [{0: 1}, {0: 2}]


async def test_what_another_owns_is_dropped_before_the_call_returns() -> None:
    broker = Broker()
    commits = commits_to(broker, LONG_SECONDS, FIRST)
    await commits.commit({FIRST: Progress(1)})
    await turn()
    await commits.commit({FIRST: Progress(2), SECOND: Progress(2)})
    assert broker.requests == [{0: 1}, {0: 2}]
    assert commits.failing is None


async def test_what_the_broker_does_not_take_stays_and_is_told() -> None:
    broker = Broker()
    broker.refusals = [NotCoordinatorForGroupError()]
    commits = commits_to(broker, LONG_SECONDS, FIRST)
    await commits.commit({FIRST: Progress(1)})
    await commits.flush()
    assert "signing" in (commits.failing or "")
    assert broker.requests == []
    await commits.flush()
    assert commits.failing is None
    assert broker.requests == [{0: 1}]
    await commits.close()
