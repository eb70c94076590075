"""What is recorded of a job: settled, expired or parked. The bridge from an attempt to `core.settle` and the log.

Owns the sender's outcome metrics and its one log line an attempt. Never talks to a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Counter, Histogram

from postrail.core import identity
from postrail.core.records import EventType
from postrail.core.replies import PermanentFailure
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
from postrail.log.interface import Body, LogError
from postrail.sender.job import Job
from postrail.sender.outcomes import Outcomes
from postrail.shell import logs
from postrail.shell.spill import Spill
from postrail.wire import output

LOG = logs.logger("sender")

SPILL_SECONDS = 5.0
"""How long an outcome waits for the blob store. Until it is recorded, a crash repeats the delivery."""

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


_ENDS = frozenset({EventType.DELIVERED, EventType.FAILED, EventType.EXPIRED})
_CERTAIN: dict[str, str] = {}


class Settler:
    """Turns what happened to a job into an outcome.

    Args:
        clock: Unix seconds.
        jitter: a fraction in [0, 1).
    """

    def __init__(
        self,
        outcomes: Outcomes,
        policy: Policy,
        spill: Spill,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._outcomes = outcomes
        self._policy = policy
        self._spill = spill
        self._clock = clock
        self._jitter = jitter
        self._counters: dict[tuple[str, EventType], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def settle(
        self, job: Job, results: Sequence[RecipientResult], attempt: AttemptContext, original_body: bytes | None = None
    ) -> Awaitable[None] | None:
        """Record the results of an attempt, one for each recipient of the delivery.

        Returns:
            None when that is done; otherwise what must be awaited first, because the body is large and many wait with it.
        """
        settlement = settle(
            job.delivery,
            results,
            attempt,
            self._policy,
            now=self._clock(),
            jitter=self._jitter(),
            original_body=original_body,
        )
        group = self._group(job)
        duration = self._durations.get(group)
        if duration is None:
            duration = self._durations[group] = DURATION.labels(group)
        duration.observe(attempt.duration_seconds)
        _log(job, results, attempt)
        if job.body is not None and self._spill.is_wanted(job.body, len(settlement.deferred)):
            return self._record_spilled(job, settlement, job.body)
        self._record(job, settlement, job.body)
        return None

    async def original(self, job: Job, results: Sequence[RecipientResult]) -> bytes | None:
        """The body for a notification, where the sender asked for it (RFC 3461 §4.3) and one may be made."""
        if job.delivery.envelope.ret != "FULL":
            return None
        if not any(isinstance(result.failure, PermanentFailure) for result in results):
            return None
        return await self._spill.original(job.delivery, job.body)

    async def _record_spilled(self, job: Job, settlement: Settlement, body: Body) -> None:
        """Record with the body in the blob store; with it in each record where the store does not take it soon."""
        try:
            async with asyncio.timeout(SPILL_SECONDS):
                blob = await self._spill.keep(job.delivery.envelope.message_id, body)
        except (OSError, LogError) as error:
            LOG.warning("body-not-spilled", message_id=job.delivery.envelope.message_id, reason=str(error))
            self._record(job, settlement, body)
        else:
            self._record(job, settlement.with_blob(blob), None)

    def expire(self, job: Job) -> None:
        """Give the delivery up: its deadline has passed. One whose body must be read to be returned is left to routing."""
        delivery, body = job.delivery, None
        if delivery.envelope.ret == "FULL":
            body = job.body.in_memory if job.body is not None else None
            if body is None and (job.body is not None or delivery.blob is not None):
                self.park(job, 0.0, "its deadline has passed")
                return
        settlement = expire(delivery, self._policy, now=self._clock(), original_body=body)
        self._record(job, settlement, job.body)
        LOG.info("expired", message_id=job.delivery.envelope.message_id, recipients=len(job.pending))

    def park(self, job: Job, wait_seconds: float, reason: str) -> None:
        """Keep the delivery for about so long, without an attempt. One that has recipients decided is settled instead."""
        settlement = park(job.delivery, wait_seconds, reason, self._policy, now=self._clock())
        self._record(job, settlement, job.body)

    def _record(self, job: Job, settlement: Settlement, body: Body | None) -> None:
        group = self._group(job)
        for event in settlement.events:
            counter = self._counters.get((group, event.type))
            if counter is None:
                outcome = _OUTCOMES.get(event.type)
                if outcome is None:
                    continue
                counter = self._counters[group, event.type] = DELIVERIES.labels(group, outcome)
            counter.inc(len(event.recipients))
        appends = output.appends(settlement, body)
        self._outcomes.record(job.partition, job.offset, appends, job.name, _ended(job, settlement))

    @staticmethod
    def _group(job: Job) -> str:
        route = job.delivery.route
        return route.group if route is not None else ""


def _ended(job: Job, settlement: Settlement) -> Sequence[str]:
    """The recipients that ended with a record for which a predecessor may have recorded a retry: that retry is a repeat."""
    ownership = job.partition.ownership
    if ownership is None or not (job.queued_at < ownership.inherited_before or ownership.repeats.has_begun):
        return ()  # a parked delivery comes back as a new record, and what was begun ends with that
    message_id = job.delivery.envelope.message_id
    ended = []
    for event in settlement.events:
        names = [identity.settlement(message_id, address) for address in event.recipients]
        if event.type in _ENDS:
            ended += names
            for name in names:
                ownership.repeats.end(name)
        elif event.type is EventType.DEFERRED:
            for name in names:
                ownership.repeats.put_off(name)
    return ended


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
