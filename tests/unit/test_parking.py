"""Who is parked waits for its turn: after what its site is left alone for, one after the other."""

from collections import Counter

import pytest

from postrail.core.parking import Parking

RETURN_SECONDS = 0.04


def test_a_slow_sites_parked_mail_waits_behind_its_queue_and_behind_each_other() -> None:
    parking = Parking(RETURN_SECONDS)
    assert [parking.behind(100.0, 2.0, 1000.0) for _ in range(3)] == [102.0, 104.0, 106.0]
    assert parking.behind(100.0, 2.0, 1050.0) == 102.0


def test_a_line_that_has_passed_is_forgotten() -> None:
    parking = Parking(RETURN_SECONDS)
    parking.behind(100.0, 2.0, 1000.0)
    assert parking.behind(0.0, 2.0, 5000.0) == 2.0


def test_the_line_of_a_site_that_is_left_alone_begins_when_it_is_tried_again() -> None:
    parking = Parking(RETURN_SECONDS)
    assert [parking.blocked(300.0, 0.125, 1000.0) for _ in range(3)] == [300.125, 300.25, 300.375]
    assert parking.blocked(200.0, 0.125, 1100.0) == 200.5


def test_however_much_a_site_may_be_sent_its_mail_does_not_come_back_all_at_once() -> None:
    parking = Parking(RETURN_SECONDS)
    waits = [parking.blocked(300.0, 0.0001, 1000.0) for _ in range(100_000)]
    assert waits[-1] == pytest.approx(300.0 + 100_000 * RETURN_SECONDS)
    within_a_second = Counter(int(wait) for wait in waits)
    assert max(within_a_second.values()) <= 1 / RETURN_SECONDS + 1


def test_a_line_that_is_looked_at_again_stays_as_long_as_it_is() -> None:
    parking, now = Parking(RETURN_SECONDS), 1000.0
    for _ in range(10_000):
        parking.blocked(300.0, 0.125, now)
    wait = 0.0
    for _ in range(1000):  # one comes back every eighth of a second, finds the site down, and joins the end again
        now += 0.125
        wait = parking.blocked(300.0, 0.125, now)
    assert wait == 1550.0
