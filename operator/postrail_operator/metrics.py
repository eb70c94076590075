"""The operator's own metrics, and what it counts of the objects' conditions. Declares and moves them; decides nothing."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from postrail.core.conditions import is_bad

# outcome: done, failed (the API server or Prometheus did not answer, or refused; tried again). Alert when failed grows for 10
# minutes: objects are not acted on.
RECONCILES = Counter("postrail_operator_reconciles_total", "Looks at all objects.", ["outcome"])
# No labels. From the first question to the last answer. Alert when the 90th percentile exceeds 30 s.
RECONCILE_SECONDS = Histogram(
    "postrail_operator_reconcile_seconds", "Duration of a look at all objects.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100)
)
# verb: apply, delete, status, scale; result: done, failed. Alert when failed grows for 10 minutes; the log says what was refused.
ACTIONS = Counter("postrail_operator_actions_total", "Changes made in the cluster.", ["verb", "result"])
# No labels. 1 in the replica that acts, 0 in those that stand by. Alert when the sum over all replicas is not 1 for 5 minutes.
ACTING = Gauge("postrail_operator_acting", "Whether this replica acts.")
# No labels. Unix time of the last look that went well. Alert when it is older than 5 minutes in the replica that acts.
LAST_RECONCILE = Gauge("postrail_operator_last_reconcile_timestamp_seconds", "When all objects were last looked at.")
# kind: IPPool, SenderPool, Destination, SendingDomain, Submitter; condition and reason as in the objects' status. Counts objects,
# of an IPPool's address conditions addresses. Alert on Accepted and on Listed at once, on others when they last 15 minutes.
PROBLEMS = Gauge(
    "postrail_operator_problems",
    "Objects and addresses with a condition in its bad state.",
    ["kind", "condition", "reason"],
)
# kind: as above. Nothing to alert on.
OBJECTS = Gauge("postrail_operator_objects", "Objects by kind.", ["kind"])


def problems(statuses: Iterable[tuple[str, Mapping[str, Any]]]) -> Tally[tuple[str, str, str]]:
    """How many objects (addresses) have each problem, by kind, condition and reason.

    Args:
        statuses: kind and status of each object.
    """
    found: Tally[tuple[str, str, str]] = Tally()
    for kind, status in statuses:
        every = [*status.get("conditions", ())]
        every += [one for address in status.get("addresses", ()) for one in address["conditions"]]
        found.update((kind, one["type"], one["reason"]) for one in every if is_bad(one["type"], one["status"]))
    return found


def show(statuses: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Set the gauges of objects and problems."""
    listed = list(statuses)
    PROBLEMS.clear()
    OBJECTS.clear()
    for labels, number in problems(listed).items():
        PROBLEMS.labels(*labels).set(number)
    for kind, number in Tally(kind for kind, _ in listed).items():
        OBJECTS.labels(kind).set(number)
