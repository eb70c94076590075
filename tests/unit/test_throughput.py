"""The wait in a queue is measured over a while, so neither its start nor one hiccup makes a fast site look slow."""

import pytest

from postrail.core.throughput import MEASURE_SECONDS, Throughput


def served(throughput: Throughput, count: int, start: float, seconds_each: float) -> float:
    now = start
    for _ in range(count):
        now += seconds_each
        throughput.finish(now)
    return now


def test_nothing_waits_nothing_is_waited_for() -> None:
    assert Throughput(2.0, 100.0).wait_seconds(0, 1000.0) == 0.0


def test_what_is_allowed_is_known_before_anything_is_measured() -> None:
    assert Throughput(2.0, 100.0).wait_seconds(10, 100.0) == 20.0


def test_a_slow_start_does_not_count() -> None:
    throughput = Throughput(0.0, 100.0)
    throughput.begin(100.0)
    throughput.finish(103.0)
    assert throughput.wait_seconds(5000, 103.0) == 0.0


def test_one_hiccup_among_many_hardly_counts() -> None:
    throughput = Throughput(0.0, 0.0)
    now = served(throughput, 2000, 0.0, 0.001)
    throughput.finish(now + 1.0)
    now = served(throughput, 2000, now + 1.0, 0.001)
    throughput.finish(now)
    assert throughput.wait_seconds(4000, now) < 10.0


def test_a_slow_site_is_measured() -> None:
    throughput = Throughput(0.001, 0.0)
    now = served(throughput, 20, 0.0, 0.5)
    assert now > MEASURE_SECONDS
    assert throughput.wait_seconds(100, now) == 50.0


def test_a_pause_without_work_does_not_count() -> None:
    throughput = Throughput(0.0, 0.0)
    now = served(throughput, 10, 0.0, 0.01)
    throughput.begin(now + 3600.0)
    now = served(throughput, 1000, now + 3600.0, 0.01)
    assert throughput.wait_seconds(100, now) < 1.1


def test_a_site_that_stands_still_is_as_slow_as_it_stood_still() -> None:
    throughput = Throughput(0.0, 0.0)
    throughput.begin(100.0)
    assert throughput.wait_seconds(1, 170.0) == 70.0


def test_the_share_of_what_is_allowed_is_known_after_the_first_measure() -> None:
    pace = Throughput(0.1, 0.0)
    pace.begin(0.0)
    assert pace.share_used == 0.0
    for number in range(31):
        pace.finish(number * 0.2)
    assert pace.share_used == pytest.approx(0.5)
