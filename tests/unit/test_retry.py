"""Delays, tiers and the deadline."""

from hypothesis import given
from hypothesis import strategies as st

from postrail.core.delivery_config import RetryConfig
from postrail.core.retry import GiveUp, RetryAt, next_attempt, tier_for, turn, wait

POLICY = RetryConfig()
FAR = 1e9
NOW = 1_000_000.0
DAY = 86400.0


def test_delays_grow_and_the_last_repeats() -> None:
    found = [next_attempt(attempts, POLICY, NOW, 0.0, FAR) for attempts in range(1, 7)]
    assert found == [RetryAt(NOW + delay, delay) for delay in (300, 900, 3600, 14400, 14400, 14400)]


def test_jitter_shortens_within_the_tier() -> None:
    assert next_attempt(1, POLICY, NOW, 0.5, FAR) == RetryAt(NOW + 285.0, 300.0)


def test_site_that_takes_nothing_lengthens_the_delay() -> None:
    assert next_attempt(1, POLICY, NOW, 0.0, FAR, at_least_seconds=1200) == RetryAt(NOW + 3600, 3600)
    assert next_attempt(4, POLICY, NOW, 0.0, FAR, at_least_seconds=60) == RetryAt(NOW + 14400, 14400)


def test_past_deadline_gives_up() -> None:
    assert next_attempt(3, POLICY, NOW, 0.0, NOW) == GiveUp(NOW)
    assert next_attempt(3, POLICY, NOW, 0.0, NOW - 1) == GiveUp(NOW - 1)


def test_near_deadline_takes_the_longest_tier_before_it() -> None:
    assert next_attempt(9, POLICY, NOW, 0.0, NOW + 4000) == RetryAt(NOW + 3600, 3600)
    assert next_attempt(9, POLICY, NOW, 0.0, NOW + 300) == RetryAt(NOW + 300, 300)


def test_last_check_is_at_the_deadline_itself() -> None:
    assert next_attempt(9, POLICY, NOW, 0.9, NOW + 20) == RetryAt(NOW + 20, 60)


def test_tier_is_the_smallest_that_is_not_shorter() -> None:
    tiers = POLICY.tiers_seconds
    assert [tier_for(delay, tiers) for delay in (0, 60, 61, 300, 14400, 99999)] == [60, 60, 300, 300, 14400, 14400]


@given(
    attempts=st.integers(1, 50),
    jitter=st.floats(0, 1, exclude_max=True),
    lifetime=st.floats(0.001, 6 * DAY),
    at_least=st.floats(0, DAY),
)
def test_never_after_the_deadline_and_in_due_order(
    attempts: int, jitter: float, lifetime: float, at_least: float
) -> None:
    when = next_attempt(attempts, POLICY, NOW, jitter, NOW + lifetime, at_least_seconds=at_least)
    assert isinstance(when, RetryAt)
    assert NOW <= when.due_at <= NOW + lifetime
    assert when.tier_seconds in POLICY.tiers_seconds
    if when.due_at < NOW + lifetime:
        earliest = NOW + when.tier_seconds * (1 - POLICY.jitter)
        assert earliest <= when.due_at <= NOW + when.tier_seconds


def test_a_message_that_fails_always_ends() -> None:
    now, expires_at, attempts = NOW, NOW + 5 * DAY, 0
    while now < expires_at:
        attempts += 1
        when = next_attempt(attempts, POLICY, now, 0.3, expires_at)
        assert isinstance(when, RetryAt)
        now = when.due_at
    assert 30 < attempts < 50
    assert isinstance(next_attempt(attempts, POLICY, now, 0.3, expires_at), GiveUp)


def test_waiting_for_a_site_is_clamped_too() -> None:
    assert wait(3600, POLICY, NOW, 0.0, NOW + 500) == RetryAt(NOW + 300, 300)
    assert wait(10, POLICY, NOW, 0.0, NOW - 5) == RetryAt(NOW, 60)


def test_what_waits_for_its_turn_waits_just_so_long() -> None:
    deadline = NOW + 5 * DAY
    assert turn(400, POLICY, NOW, deadline) == RetryAt(NOW + 400, 900)
    assert turn(0.01, POLICY, NOW, deadline) == RetryAt(NOW + 60, 60)
    assert [turn(seconds, POLICY, NOW, deadline).due_at - NOW for seconds in (299, 300, 329, 331)] == [
        299,
        300,
        300,
        331,
    ]
    assert turn(DAY, POLICY, NOW, deadline) == RetryAt(NOW + 14400, 14400)


def test_a_turn_after_the_deadline_is_looked_at_before() -> None:
    assert turn(3600, POLICY, NOW, NOW + 500) == RetryAt(NOW + 300, 300)
    assert turn(10, POLICY, NOW, NOW + 30) == RetryAt(NOW + 30, 60)
