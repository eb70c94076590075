"""Which waiting deliveries make room when the finished records of a partition lie too far apart to be committed."""

from types import SimpleNamespace
from typing import Any, cast

from postrail.log.interface import TopicPartition
from postrail.log.progress import Tracker
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
