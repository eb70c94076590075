"""What the senders measured, asked of a Prometheus. Owns the questions and how answers are read; `scaling` decides by them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from postrail_operator.conditions import Load
from postrail_operator.scaling import Figures

TIMEOUT_SECONDS = 10.0
QUESTIONS: Mapping[str, str] = {
    "senders": "count by (pool, group) (postrail_sender_eligible_deliveries)",
    "eligible": "sum by (pool, group) (postrail_sender_eligible_deliveries)",
    "drain": "avg by (pool, group) (postrail_sender_drain_seconds)",
    "limits": "max by (pool, group) (postrail_sender_limits_used_ratio)",
    "oldest": "max by (pool, group) (postrail_sender_oldest_delivery_age_seconds)",
    "processor": (
        "sum by (pool, group) (postrail_sender_eligible_deliveries * 0 + on (instance) group_left () "
        "max by (instance) (postrail_sender_process_used_ratio))"
    ),
}
"""By name; each answer has a value for each pool and group."""
QUEUED = "max by (pool) (max_over_time(sum by (pool) (postrail_sender_eligible_deliveries)[{seconds}s:15s]))"
"""The most that waited for a pool's senders within a time. Deferred mail comes back to them within the longest tier."""
KNOWN = "count_over_time((sum by (pool) (postrail_sender_eligible_deliveries))[{seconds}s:15s]) * 15"
"""For how many seconds of that time there are figures."""

Answer = Mapping[tuple[str, str], float]


class MetricsError(Exception):
    """Prometheus did not answer, or not as it should; the text says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of all pools.

    Attributes:
        waited: by SenderPool, the most deliveries that waited within the longest time that a deferral takes; missing where
            there are not figures for all of that time.
    """

    figures: Mapping[str, Sequence[Figures]] = field(default_factory=dict)
    waited: Mapping[str, int] = field(default_factory=dict)

    def load(self, pool: str) -> Load | None:
        """The load of a pool, all groups together; None where nobody tells."""
        found = self.figures.get(pool)
        if not found:
            return None
        return Load(
            sum(one.eligible for one in found),
            max(one.oldest_seconds for one in found),
            max(one.limits_used for one in found),
        )

    def idle(self) -> frozenset[str]:
        """Pools for whose senders nothing waits now."""
        return frozenset(pool for pool, found in self.figures.items() if sum(one.eligible for one in found) == 0)


def figures(answers: Mapping[str, Answer]) -> dict[str, list[Figures]]:
    """The figures by pool, of the answers to QUESTIONS."""

    def value(question: str, key: tuple[str, str]) -> float:
        found = answers.get(question, {}).get(key, 0.0)
        return 0.0 if math.isnan(found) else found

    found: dict[str, list[Figures]] = {}
    for key, senders in sorted(answers.get("senders", {}).items()):
        found.setdefault(key[0], []).append(
            Figures(
                key[1],
                int(senders),
                int(value("eligible", key)),
                value("drain", key),
                value("limits", key),
                value("processor", key),
                value("oldest", key),
            )
        )
    return found


def waited(most: Answer, known_seconds: Answer, window_seconds: float) -> dict[str, int]:
    """By pool, the most that waited in a window, where nearly all of it is known."""
    return {
        pool: int(number)
        for (pool, group), number in most.items()
        if known_seconds.get((pool, group), 0.0) >= 0.95 * window_seconds
    }


def read_answer(body: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """An instant vector by pool and group.

    Raises:
        MetricsError: it is none.
    """
    try:
        if body["status"] != "success":
            raise MetricsError(f"Prometheus says: {body.get('error', body['status'])}")
        return {
            (one["metric"].get("pool", ""), one["metric"].get("group", "")): float(one["value"][1])
            for one in body["data"]["result"]
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MetricsError(f"Prometheus answered something else than a vector: {error!r}") from error


async def measure(url: str, window_seconds: float, pools: Iterable[str]) -> Measured:
    """Ask for everything.

    Args:
        window_seconds: the longest time that a deferral takes.
        pools: that are being deleted, for which the window is looked at.

    Raises:
        MetricsError: no answer.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        answers = {name: await _ask(session, url, question) for name, question in QUESTIONS.items()}
        seen: dict[str, int] = {}
        if leaving := set(pools):
            window = round(window_seconds)
            most = await _ask(session, url, QUEUED.format(seconds=window))
            known = await _ask(session, url, KNOWN.format(seconds=window))
            seen = {pool: number for pool, number in waited(most, known, window_seconds).items() if pool in leaving}
    return Measured(figures(answers), seen)


async def _ask(session: aiohttp.ClientSession, url: str, question: str) -> dict[tuple[str, str], float]:
    try:
        async with session.get(f"{url.rstrip('/')}/api/v1/query", params={"query": question}) as answer:
            return read_answer(json.loads(await answer.text()))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise MetricsError(f"{url}: {str(error) or type(error).__name__}") from error
