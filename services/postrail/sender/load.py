"""What the sender tells of its load, for people and for whatever scales it. Measures; decides nothing.

Scaling follows mail that could be sent now, never the raw lag: parked and deferred mail is no work yet, and where a receiver's
limits are used up more processes send nothing more. How to scale by these stands with each metric; `service` measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Gauge

from postrail.sender.intake import Intake
from postrail.sender.site_queue import SiteQueue

# Deliveries in the sender's memory, by pool and group: waiting, in a transaction, or with an outcome not durable yet. Alert
# when it stays at delivery.max_in_memory for 15 minutes.
HELD = Gauge("postrail_sender_queue_depth", "Deliveries in memory.", ["pool", "group"])
# Mail that could be sent now: in memory, or in the log for this process; parked and deferred mail left out. Sum it over the
# processes of a pool and group. Scale by it, or by the time to drain: a process more while the sum exceeds what the processes
# send in the time that mail may wait, and the use of the limits is below 0.8. Alert when it grows for an hour.
ELIGIBLE = Gauge("postrail_sender_eligible_deliveries", "Deliveries that could be sent now.", ["pool", "group"])
# Age of the oldest delivery that could be sent now, since it came to this sender. Alert above 300 s: then mail comes faster than
# it is sent, or a receiver takes little; the use of the limits tells which.
OLDEST = Gauge(
    "postrail_sender_oldest_delivery_age_seconds", "Age of the oldest delivery that could be sent.", ["pool", "group"]
)
# How long the mail that could be sent now takes at the rate of the last minute or so: 0 with nothing to send, +Inf while nothing
# is sent. Scale to keep it below the time that mail may wait, such as 60 s. Alert when it is above 900 s for 15 minutes.
DRAIN = Gauge(
    "postrail_sender_drain_seconds", "Time to send what could be sent now, at the present rate.", ["pool", "group"]
)
# Share of what the receivers' limits allow that is in use, from 0 to 1, over the sites for which mail waits and weighted by how
# much: of the rate or of the connections, whichever is more. 0 when nothing waits. Near 1 more processes send nothing more;
# add source addresses, or ask for higher limits. Alert when it stays above 0.95 for an hour while the oldest mail grows older.
LIMITS_USED = Gauge(
    "postrail_sender_limits_used_ratio", "Share of the receivers' limits that is in use.", ["pool", "group"]
)
# Processor time that this process uses, as a share of one core; it runs on one. Above 0.8 it sends as much as it can: start
# another. Alert when it stays above 0.9 for 15 minutes.
PROCESS_USED = Gauge("postrail_sender_process_used_ratio", "Processor time used, as a share of one core.")

SMOOTHING_SECONDS = 60.0


@dataclass(slots=True)
class _Rate:
    """How many deliveries a second are finished, smoothed."""

    finished: int = 0
    per_second: float = 0.0

    def update(self, finished: int, elapsed_seconds: float) -> float:
        now = max(0, finished - self.finished) / elapsed_seconds
        self.finished = finished
        share = 1.0 if not self.per_second else 1.0 - math.exp(-elapsed_seconds / SMOOTHING_SECONDS)
        self.per_second += share * (now - self.per_second)
        return self.per_second


class Load:
    """Moves the metrics.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, intakes: Sequence[Intake], clock: Callable[[], float]) -> None:
        self._rates: Mapping[Intake, _Rate] = {intake: _Rate() for intake in intakes}
        self._clock = clock
        self._measured_at = time.monotonic()
        self._processor_seconds = time.process_time()

    def measure(self, queues: Iterable[SiteQueue]) -> None:
        """Look at all intakes and queues; called every few seconds."""
        now, processor_seconds = time.monotonic(), time.process_time()
        elapsed_seconds = max(now - self._measured_at, 0.001)
        PROCESS_USED.set((processor_seconds - self._processor_seconds) / elapsed_seconds)
        self._measured_at, self._processor_seconds = now, processor_seconds
        used = _limits_used(queues)
        for intake, rate in self._rates.items():
            labels = (intake.pool, intake.group)
            eligible = intake.held + intake.lag()
            per_second = rate.update(intake.taken - intake.held, elapsed_seconds)
            HELD.labels(*labels).set(intake.held)
            ELIGIBLE.labels(*labels).set(eligible)
            OLDEST.labels(*labels).set(self._oldest_seconds(intake))
            DRAIN.labels(*labels).set(drain_seconds(eligible, per_second))
            LIMITS_USED.labels(*labels).set(used.get(intake.name, 0.0))

    def _oldest_seconds(self, intake: Intake) -> float:
        first = (next(iter(partition.jobs.values()), None) for partition in intake.partitions.values())
        oldest = min((job.queued_at for job in first if job is not None), default=None)
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)


def drain_seconds(eligible: int, per_second: float) -> float:
    """How long so many take at a rate."""
    if not eligible:
        return 0.0
    return eligible / per_second if per_second > 0 else math.inf


def _limits_used(queues: Iterable[SiteQueue]) -> dict[str, float]:
    """By reader group: the mean of its queues with waiting mail, weighted by how much waits."""
    waiting: dict[str, int] = {}
    used: dict[str, float] = {}
    for queue in queues:
        if depth := queue.backlog.depth:
            name = queue.place[0]
            waiting[name] = waiting.get(name, 0) + depth
            used[name] = used.get(name, 0.0) + depth * queue.limits_used()
    return {name: used[name] / depth for name, depth in waiting.items()}
