"""What is recorded of a job: settled, expired or parked. The bridge from an attempt to `core.settle` and the log.

Owns the sender's outcome metrics and its one log line an attempt. Never talks to a server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import Counter, Histogram

from postrail.core.records import EventType
from postrail.core.settle import (
    AMBIGUOUS_DETAIL,
    AttemptContext,
    Policy,
    RecipientResult,
    Settlement,
    expire,
    park,
    settle,
)
from postrail.sender.job import Job
from postrail.sender.outcomes import Outcomes
from postrail.shell import logs
from postrail.wire import output

LOG = logs.logger("sender")

# Recipients by what an attempt (or none) made of them. group: destination group. outcome: delivered, deferred, failed (bounced),
# expired, parked (not tried, because the site cannot take it now), ambiguous (the final dot was not answered; these are deferred
# too). Alert when failed + deferred exceed delivered for 30 minutes, and on any increase of ambiguous.
DELIVERIES = Counter("postrail_sender_deliveries_total", "Recipients by outcome.", ["group", "outcome"])
# From MAIL to the last reply, for attempts that reached a session. Alert when the 90th percentile exceeds 60 s.
DURATION = Histogram(
    "postrail_sender_delivery_seconds",
    "Duration of transactions.",
    ["group"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 5, 30, 120, 600),
)

_OUTCOMES = {
    EventType.DELIVERED: "delivered",
    EventType.DEFERRED: "deferred",
    EventType.FAILED: "failed",
    EventType.EXPIRED: "expired",
    EventType.PARKED: "parked",
    EventType.AMBIGUOUS: "ambiguous",
}


_CERTAIN: dict[str, str] = {}


class Settler:
    """Turns what happened to a job into an outcome.

    Args:
        clock: Unix seconds.
        jitter: a fraction in [0, 1).
    """

    def __init__(
        self, outcomes: Outcomes, policy: Policy, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._outcomes = outcomes
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._counters: dict[tuple[str, EventType], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def settle(
        self, job: Job, results: Sequence[RecipientResult], attempt: AttemptContext, original_body: bytes | None = None
    ) -> None:
        """Record the results of an attempt, one for each recipient of the delivery."""
        settlement = settle(
            job.delivery,
            results,
            attempt,
            self._policy,
            now=self._clock(),
            jitter=self._jitter(),
            original_body=original_body,
        )
        self._record(job, settlement)
        group = self._group(job)
        duration = self._durations.get(group)
        if duration is None:
            duration = self._durations[group] = DURATION.labels(group)
        duration.observe(attempt.duration_seconds)
        _log(job, results, attempt)

    def expire(self, job: Job) -> None:
        """Give the delivery up: its deadline has passed. Its body goes back where that was asked for and it is at hand."""
        body = job.body.in_memory if job.body is not None and job.delivery.envelope.ret == "FULL" else None
        settlement = expire(job.delivery, self._policy, now=self._clock(), original_body=body)
        self._record(job, settlement)
        LOG.info("expired", message_id=job.delivery.envelope.message_id, recipients=len(job.pending))

    def park(self, job: Job, wait_seconds: float, reason: str) -> None:
        """Keep the delivery for about so long, without an attempt. One that has recipients decided is settled instead."""
        settlement = park(job.delivery, wait_seconds, reason, self._policy, now=self._clock(), jitter=self._jitter())
        self._record(job, settlement)

    def _record(self, job: Job, settlement: Settlement) -> None:
        group = self._group(job)
        for event in settlement.events:
            counter = self._counters.get((group, event.type))
            if counter is None:
                outcome = _OUTCOMES.get(event.type)
                if outcome is None:
                    continue
                counter = self._counters[group, event.type] = DELIVERIES.labels(group, outcome)
            counter.inc(len(event.recipients))
        self._outcomes.record(job.partition, job.offset, output.appends(settlement, job.body), job.name)

    @staticmethod
    def _group(job: Job) -> str:
        route = job.delivery.route
        return route.group if route is not None else ""


def _log(job: Job, results: Sequence[RecipientResult], attempt: AttemptContext) -> None:
    shown, delivered, ambiguous = results[0], 0, False
    for result in results:
        if result.failure is None:
            delivered += 1
        elif shown.failure is None:
            shown = result
        ambiguous = ambiguous or result.ambiguous
    reply = shown.reply if shown.failure is None else shown.failure.reply
    delivery = job.delivery
    site, source = ("", "") if delivery.route is None else (delivery.route.site, delivery.route.source_address)
    write, certainty = (LOG.warning, {"ambiguous": AMBIGUOUS_DETAIL}) if ambiguous else (LOG.info, _CERTAIN)
    write(
        "attempt",
        message_id=delivery.envelope.message_id,
        recipients=len(results),
        delivered=delivered,
        attempt=delivery.attempts + 1,
        site=site,
        source=source,
        mx=attempt.mx_host,
        ip=attempt.mx_address,
        tls=attempt.tls,
        seconds=round(attempt.duration_seconds, 4),
        reply="" if reply is None else str(reply),
        **certainty,
    )
