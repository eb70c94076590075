"""When a delivery is tried again, and in which deferral tier it waits until then.

Owns the arithmetic of delays, tiers and the deadline. Knows nothing of replies (`verdicts`) or records (`settle`).

A tier's topic is in due order by construction: what enters a tier of T seconds at `now` is due within
(now + T·(1 - jitter), now + T]. The one exception is the last check before the deadline, which may be due earlier and so be
looked at up to the shortest tier late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from postrail.core.config import RetryConfig


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


def tier_for(delay_seconds: float, tiers_seconds: Sequence[float]) -> float:
    """The smallest tier that is not shorter than the delay; the longest where all are shorter.

    Args:
        tiers_seconds: ascending, not empty.
    """
    for tier in tiers_seconds:
        if tier >= delay_seconds:
            return tier
    return tiers_seconds[-1]
