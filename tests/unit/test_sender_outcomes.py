"""What becomes of outcomes that the log does not take."""

import asyncio

import pytest

from postrail.core.topics import EVENTS
from postrail.log.interface import Append, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.sender import outcomes as outcomes_module
from postrail.sender.job import Partition
from postrail.sender.outcomes import Outcomes
from postrail.wire import codec
from tests.support.memory_log import MemoryLog
from tests.support.stage_setting import eventually

WHERE = TopicPartition("outbound.p.g.bulk", 0)
TIER, TOLD = "deferred.60s", "outcomes.p.g"


def values(log: MemoryLog, topic: str) -> list[bytes]:
    return [record.value for record in log.topics.get(topic, [])]


def names(log: MemoryLog) -> list[tuple[str, ...]]:
    return [codec.decode_finished(value).names for value in values(log, TOLD)]


def three_outcomes(log: MemoryLog) -> tuple[Outcomes, Partition, list[Partition]]:
    """The second of them has a deferral beside one that is too large."""
    log.is_atomic, log.max_bytes = False, 100
    durable: list[Partition] = []
    outcomes = Outcomes(log, durable.extend, lambda group: TOLD)
    partition = Partition("sender.p.g", WHERE, Tracker(0))
    for offset in range(3):
        partition.tracker.start(offset)
        large = [Append(TIER, b"k", bytes(101))] if offset == 1 else []
        small = Append(TIER, b"k", b"%d" % offset)
        outcomes.record(partition, offset, [small, *large, Append(EVENTS, b"k", b"e%d" % offset)], f"name-{offset}")
    return outcomes, partition, durable


async def test_one_that_is_too_large_waits_alone_and_is_stored_once_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "TOO_LARGE_RETRY_SECONDS", 0.05)
    log = MemoryLog()
    outcomes, partition, durable = three_outcomes(log)
    outcomes.start()
    await eventually(lambda: log.progress.get(("sender.p.g", WHERE)) == Progress(1, frozenset({2})))
    assert values(log, TIER) == [b"0", b"1", b"2"]
    assert values(log, EVENTS) == [b"e0", b"e2"]
    assert names(log) == [("name-0", "name-2")]
    assert durable == [partition] * 2
    assert outcomes.refusal is None
    await asyncio.sleep(0.15)
    log.max_bytes = 101
    await eventually(lambda: log.progress["sender.p.g", WHERE] == Progress(3))
    assert values(log, TIER) == [b"0", b"1", b"2", bytes(101)], "what was stored is not appended again"
    assert values(log, EVENTS) == [b"e0", b"e2", b"e1"]
    assert names(log)[1:] == [("name-1",)]
    assert durable == [partition] * 3
    await outcomes.close(1.0)


async def test_one_whose_partition_is_lost_is_its_next_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "TOO_LARGE_RETRY_SECONDS", 0.05)
    log = MemoryLog()
    outcomes, partition, _ = three_outcomes(log)
    outcomes.start()
    await eventually(lambda: ("sender.p.g", WHERE) in log.progress)
    assert await outcomes.settled([partition], 1.0), "nobody waits for it"
    assert not outcomes.names_not_durable(WHERE), "else its next owner would finish it without its mail"
    partition.lost = True
    log.max_bytes = 101
    await asyncio.sleep(0.2)
    await outcomes.close(1.0)
    assert bytes(101) not in values(log, TIER)
    assert log.progress["sender.p.g", WHERE] == Progress(1, frozenset({2}))
