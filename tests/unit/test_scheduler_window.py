"""The window over a tier's front: order, bounds and clocks."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from postrail.log.interface import Append, TopicPartition
from postrail.scheduler.window import MAX_BYTES, MAX_RECORDS, Waiting, Window

ORDER = count()
FIRST, SECOND = TopicPartition("deferred.60s", 0), TopicPartition("deferred.60s", 1)


def waiting(due_at: float, *, latest: float = 1e9, partition: TopicPartition = FIRST, size_bytes: int = 10) -> Waiting:
    order = next(ORDER)
    return Waiting(due_at, order, latest, partition, order, Append("due.bulk", b"key", bytes(size_bytes)), due_at)


def filled(*records: Waiting) -> Window:
    window = Window()
    for record in records:
        window.add(record)
    return window


@given(st.lists(st.floats(min_value=0, max_value=200), max_size=60), st.floats(min_value=0, max_value=200))
def test_what_is_due_leaves_in_order_and_the_rest_stays(times: list[float], now: float) -> None:
    window = filled(*map(waiting, times))
    taken = [record.due_at for record in window.take_due(now, 0.0)]
    assert taken == sorted(time for time in times if time <= now)
    assert len(window) == len(times) - len(taken)
    assert window.take_due(now, 0.0) == []


def test_time_to_the_next() -> None:
    assert Window().seconds_to_next(0.0, 0.0) == float("inf")
    assert filled(waiting(30.0), waiting(20.0)).seconds_to_next(15.0, 0.0) == 5.0
    assert filled(waiting(20.0)).seconds_to_next(99.0, 0.0) == 0.0


def test_clock_that_was_set_back_delays_by_a_tier_at_most() -> None:
    window = filled(waiting(1000.0, latest=60.0))
    assert window.seconds_to_next(-3000.0, 50.0) == 10.0
    assert window.take_due(-3000.0, 59.0) == []
    assert len(window.take_due(-3000.0, 60.0)) == 1


def test_room_is_bounded_by_records_and_by_bytes() -> None:
    assert Window().room == MAX_RECORDS
    assert filled(*(waiting(1.0) for _ in range(MAX_RECORDS))).room == 0
    large = filled(waiting(1.0, size_bytes=MAX_BYTES))
    assert large.room == 0
    large.take_due(2.0, 0.0)
    assert large.room == MAX_RECORDS


def test_records_of_a_lost_partition_are_forgotten() -> None:
    window = filled(waiting(1.0), waiting(2.0, partition=SECOND, size_bytes=MAX_BYTES), waiting(3.0))
    window.forget({SECOND})
    assert window.room == MAX_RECORDS - 2
    assert [record.due_at for record in window.take_due(9.0, 0.0)] == [1.0, 3.0]
