"""Which offsets of a partition are finished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.log.progress import METADATA_LIMIT_BYTES, Progress, Tracker


@given(st.integers(0, 1 << 40), st.sets(st.integers(1, 20_000)))
def test_metadata_reads_back(low: int, distances: set[int]) -> None:
    progress = Progress(low, frozenset(low + distance for distance in distances))
    assert Progress.parse(low, progress.metadata()) == progress


def test_metadata_is_empty_when_nothing_is_finished_ahead() -> None:
    assert Progress(7).metadata() == ""
    assert Progress.parse(7, "") == Progress(7)


def test_metadata_of_a_full_window_fits() -> None:
    every_other = Progress(100, frozenset(range(101, 20_000, 2)))
    assert len(every_other.metadata()) < METADATA_LIMIT_BYTES


@pytest.mark.parametrize("text", ["not base64!", "AAAA", "\u00e4"])
def test_metadata_of_others_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Progress.parse(0, text)


def test_includes() -> None:
    progress = Progress(5, frozenset({7}))
    assert [offset for offset in range(10) if progress.includes(offset)] == [0, 1, 2, 3, 4, 7]


def test_the_watermark_waits_for_the_oldest() -> None:
    tracker = Tracker(10)
    for offset in range(10, 15):
        tracker.start(offset)
    for offset in (11, 13):
        tracker.finish(offset)
    assert tracker.progress() == Progress(10, frozenset({11, 13}))
    tracker.finish(10)
    assert tracker.progress() == Progress(12, frozenset({13}))
    assert (tracker.in_flight, tracker.spread) == (2, 3)
    tracker.finish(12)
    tracker.finish(14)
    assert tracker.progress() == Progress(15)
    assert (tracker.in_flight, tracker.spread) == (0, 0)


def test_gaps_are_passed_over() -> None:
    tracker = Tracker(0)
    tracker.start(5)
    tracker.start(9)
    tracker.finish(5)
    assert tracker.progress() == Progress(9)


def test_what_was_not_started_or_is_finished_already_changes_nothing() -> None:
    tracker = Tracker(0)
    tracker.start(0)
    tracker.start(1)
    tracker.finish(1)
    tracker.finish(1)
    tracker.finish(44)
    assert tracker.progress() == Progress(0, frozenset({1}))


@given(st.permutations(range(12)), st.integers(0, 12))
def test_every_finished_offset_is_included_and_no_other(order: list[int], finished: int) -> None:
    tracker = Tracker(0)
    for offset in range(12):
        tracker.start(offset)
    for offset in order[:finished]:
        tracker.finish(offset)
    progress = tracker.progress()
    assert {offset for offset in range(12) if progress.includes(offset)} == set(order[:finished])


def test_what_was_finished_before_stays_finished() -> None:
    tracker = Tracker(3, {5, 6, 8})
    tracker.start(3)
    tracker.start(4)
    tracker.finish(3)
    tracker.finish(4)
    assert tracker.progress() == Progress(7, frozenset({8}))
    assert tracker.progress() == Progress(7, frozenset({8})), "a second look changes nothing"
    tracker.start(7)
    tracker.start(9)
    tracker.finish(9)
    assert tracker.progress() == Progress(7, frozenset({8, 9}))
    tracker.finish(7)
    assert tracker.progress() == Progress(10)


@given(st.sets(st.integers(0, 15)), st.data())
def test_a_new_owner_forgets_nothing(before: set[int], data: st.DataObject) -> None:
    finished = set(before)
    tracker = Tracker(0, before)
    waiting = [offset for offset in range(16) if offset not in before]
    started: list[int] = []
    while waiting or started:
        if started and (not waiting or data.draw(st.booleans())):
            offset = data.draw(st.sampled_from(started))
            started.remove(offset)
            tracker.finish(offset)
            finished.add(offset)
        else:
            started.append(waiting.pop(0))
            tracker.start(started[-1])
        progress = tracker.progress()
        assert {offset for offset in range(16) if progress.includes(offset)} >= finished
        assert not any(map(progress.includes, [*started, *waiting]))
