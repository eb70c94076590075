"""When a delivery is tried again, and in which deferral tier it waits until then.

Owns the arithmetic of delays, tiers and the deadline. Knows nothing of replies (`verdicts`) or records (`settle`).

A tier's topic is nearly in due order by construction: what enters a tier of T seconds at `now` is due within
(now + T·(1 - jitter), now + T]. Due earlier are what is parked until its turn, and the last check before the deadline. Those
come late where more waits before them than the scheduler reads ahead, but within T of their entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from postrail.core.delivery_config import RetryConfig

EARLY_SHARE = 0.1
"""By how much of a tier a turn is taken too early rather than in the next tier."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `due_at` (Unix seconds), waiting in the tier of `tier_seconds`."""

    due_at: float
    tier_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The deadline `expired_at` (Unix seconds) has passed."""

    expired_at: float


def next_attempt(
    attempts: int, policy: RetryConfig, now: float, jitter: float, expires_at: float, *, at_least_seconds: float = 0.0
) -> RetryAt | GiveUp:
    """Decide when a delivery is tried again.

    Args:
        attempts: how many were made, this one included; 1 or more.
        now: Unix time in seconds.
        jitter: fraction in [0, 1): how much of the allowed shortening is used.
        expires_at: the deadline; no retry lies after it.
        at_least_seconds: for how long the site takes nothing; the delay is not shorter.
    Returns:
        RetryAt, or GiveUp when the deadline has passed.
    Source: RFC 5321 §4.5.4.1; deviations in docs/rfc.md.
    """
    if now >= expires_at:
        return GiveUp(expires_at)
    delays = policy.delays_seconds
    delay = delays[min(max(attempts, 1), len(delays)) - 1]
    return wait(max(delay, at_least_seconds), policy, now, jitter, expires_at)


def wait(delay_seconds: float, policy: RetryConfig, now: float, jitter: float, expires_at: float) -> RetryAt:
    """Where something waits for about `delay_seconds`, and until when: never beyond the deadline.

    When the deadline is nearer than the tier, the longest tier that ends before it is taken instead; when none does, the
    shortest one with the deadline as due time: the last check.
    """
    tier = tier_for(delay_seconds, policy.tiers_seconds)
    if now + tier > expires_at:
        remaining = expires_at - now
        tier = next((shorter for shorter in reversed(policy.tiers_seconds) if shorter <= remaining), 0.0)
        if not tier:
            return RetryAt(max(now, expires_at), policy.tiers_seconds[0])
    return RetryAt(now + tier * (1.0 - policy.jitter * jitter), tier)


def turn(wait_seconds: float, policy: RetryConfig, now: float, expires_at: float) -> RetryAt:
    """Where something waits for its turn: for just so long, but not less than the shortest tier, nor more than the longest.

    A turn that comes little after a tier's end is taken at its end, since in the next tier most are due much later. When the
    deadline is nearer than the turn, as `wait`.
    """
    seconds = max(wait_seconds, policy.tiers_seconds[0])
    tier = tier_for(seconds / (1.0 + EARLY_SHARE), policy.tiers_seconds)
    seconds = min(seconds, tier)
    return RetryAt(now + seconds, tier) if now + seconds <= expires_at else wait(seconds, policy, now, 0.0, expires_at)


def tier_for(delay_seconds: float, tiers_seconds: Sequence[float]) -> float:
    """The smallest tier that is not shorter than the delay; the longest where all are shorter.

    Args:
        tiers_seconds: ascending, not empty.
    """
    for tier in tiers_seconds:
        if tier >= delay_seconds:
            return tier
    return tiers_seconds[-1]
