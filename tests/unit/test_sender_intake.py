"""Which waiting deliveries make room when finished records lie too far apart, and what an owner knows of a partition."""

from types import SimpleNamespace
from typing import Any, cast

from postrail.log.interface import TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.sender.intake import LAGGARDS, MAX_SPREAD, Intake
from postrail.sender.job import Job, Partition

WHERE = TopicPartition("outbound.p.g.bulk", 0)
WAITING = 3 * LAGGARDS


def intake(records: int) -> Intake:
    """So many records taken up; the first of them wait, all others are finished."""
    tracker = Tracker(0)
    for offset in range(records):
        tracker.start(offset)
    for offset in range(WAITING, records):
        tracker.finish(offset)
    jobs = {offset: cast("Job", SimpleNamespace(offset=offset, queued=True)) for offset in range(WAITING)}
    made = Intake(cast("Any", None), "p", "g", cast("Any", None))
    made.partitions[WHERE] = Partition(made.name, WHERE, tracker, jobs=jobs)
    return made


def test_while_the_commit_has_room_nobody_makes_any() -> None:
    assert not list(intake(MAX_SPREAD).laggards())


def test_the_oldest_make_room_for_several_polls_at_once() -> None:
    spread_out = intake(MAX_SPREAD + 1)
    assert spread_out.is_spread_out()
    assert [job.offset for job in spread_out.laggards()] == list(range(LAGGARDS))
    for offset in range(LAGGARDS):
        spread_out.partitions[WHERE].tracker.finish(offset)
    assert not spread_out.is_spread_out()
    assert spread_out.partitions[WHERE].tracker.spread == MAX_SPREAD + 1 - LAGGARDS


def test_nobody_else_makes_room_while_the_oldest_is_under_way() -> None:
    spread_out = intake(MAX_SPREAD + 1)
    spread_out.partitions[WHERE].jobs[0].queued = False
    assert not list(spread_out.laggards())


class LogDuringAnOutage:
    """A log that is not atomic, and whose tail ends where the outcome is stored that was waiting when it was asked."""

    is_atomic = False

    def __init__(self, waiting: list[str]) -> None:
        self.waiting = waiting

    async def committed(self, group: str, topics: Any) -> dict[TopicPartition, Progress]:
        return {WHERE: Progress(0)}

    async def tail(self, topic: str, number: int, **wanted: Any) -> list[Any]:
        self.waiting.clear()
        return []


async def test_an_outcome_that_becomes_durable_while_the_tail_is_read_is_known() -> None:
    waiting = ["hand-over"]
    owner = SimpleNamespace(
        clock=lambda: 0.0, names_not_durable=lambda _: tuple(waiting), take_over=lambda partitions: None
    )
    taken_back = Intake(cast("Any", LogDuringAnOutage(waiting)), "p", "g", cast("Any", owner))
    await taken_back._assigned([WHERE])
    ownership = taken_back.partitions[WHERE].ownership
    assert ownership is not None
    assert not ownership.repeats.is_first("hand-over")
    assert ownership.repeats.is_first("another")
