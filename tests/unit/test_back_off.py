"""Who fails is left alone, longer each time, until something works."""

from postrail.core.back_off import BackOff

DELAYS = (60.0, 300.0)


def test_nothing_is_left_alone_at_first() -> None:
    back_off = BackOff(DELAYS)
    assert back_off.remaining_seconds(0.0) == 0.0
    assert not back_off.is_remembered(0.0)


def test_each_failure_counts_longer_up_to_the_last_delay() -> None:
    back_off, now = BackOff(DELAYS), 1000.0
    for expected in (60.0, 300.0, 300.0):
        assert back_off.begin(now, "busy")
        assert back_off.remaining_seconds(now) == expected
        now += expected
    assert back_off.remaining_seconds(now) == 0.0


def test_failures_during_the_pause_change_nothing() -> None:
    back_off = BackOff(DELAYS)
    back_off.begin(1000.0, "first")
    assert not back_off.begin(1059.0, "second")
    assert back_off.remaining_seconds(1059.0) == 1.0
    assert back_off.reason == "first"


def test_it_starts_anew_once_it_worked_after_the_pause() -> None:
    back_off = BackOff(DELAYS)
    back_off.begin(1000.0, "busy")
    back_off.worked(1030.0)  # under way since before the pause
    back_off.begin(1060.0, "busy")
    assert back_off.remaining_seconds(1060.0) == 300.0
    back_off.worked(1360.0)
    back_off.begin(1360.0, "busy")
    assert back_off.remaining_seconds(1360.0) == 60.0


def test_it_is_remembered_for_twice_the_longest_delay() -> None:
    back_off = BackOff(DELAYS)
    back_off.begin(1000.0, "busy")
    assert back_off.is_remembered(1659.0)
    assert not back_off.is_remembered(1660.0)
