"""Who is parked waits for its turn: a short line for as long as the site is left alone, a long one spread out."""

from postrail.core.parking import Parking

PATIENCE_SECONDS = 60.0


def test_a_slow_sites_parked_mail_waits_behind_its_queue_and_behind_each_other() -> None:
    parking = Parking(PATIENCE_SECONDS)
    assert [parking.behind(100.0, 2.0, 1000.0) for _ in range(3)] == [102.0, 104.0, 106.0]
    assert parking.behind(100.0, 2.0, 1050.0) == 102.0


def test_a_line_that_has_passed_is_forgotten() -> None:
    parking = Parking(PATIENCE_SECONDS)
    parking.behind(100.0, 2.0, 1000.0)
    assert parking.behind(0.0, 2.0, 5000.0) == 2.0


def test_a_short_line_is_parked_for_as_long_as_the_site_is_left_alone() -> None:
    parking = Parking(PATIENCE_SECONDS)
    assert {parking.blocked(300.0, 0.125, 1000.0) for _ in range(480)} == {300.0}


def test_a_long_line_is_spread_out() -> None:
    parking = Parking(PATIENCE_SECONDS)
    waits = [parking.blocked(300.0, 0.125, 1000.0) for _ in range(10_000)]
    assert sum(wait == 300.0 for wait in waits) == 480
    assert max(waits) == 1550.0


def test_a_line_that_is_looked_at_again_stays_as_long_as_it_is() -> None:
    parking, now = Parking(PATIENCE_SECONDS), 1000.0
    for _ in range(10_000):
        parking.blocked(300.0, 0.125, now)
    wait = 0.0
    for _ in range(1000):  # one comes back every eighth of a second, finds the site down, and joins the end again
        now += 0.125
        wait = parking.blocked(300.0, 0.125, now)
    assert wait == 1550.0
