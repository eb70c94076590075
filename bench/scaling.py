"""Whether twice the processes of a service cost twice the CPU: work done per CPU second with 1, 2 and 4 of them.

Owns: the comparison over numbers of processes. On a machine with fewer cores than processes the rate stays the same; what is
compared is the CPU that the service takes for a message.
"""

import logging
from collections.abc import Sequence

from bench.comparison import Work, measure
from bench.systems import PostrailOnKafka

_log = logging.getLogger("bench")

SERVICES = ("signing", "sender")
COPIES = (1, 2, 4)


def measure_scaling(work: Work, sessions: int) -> dict[str, dict[int, float]]:
    """CPU milliseconds a message of each service of SERVICES, by the number of its processes: the least of the rounds."""
    found: dict[str, dict[int, float]] = {service: {} for service in SERVICES}
    for _ in range(work.rounds):
        for service in SERVICES:
            for copies in COPIES:
                measured = measure(_with(service, copies), work, sessions)
                cost = measured.parts_cpu_seconds[service] * 1000 / measured.messages
                found[service][copies] = min(cost, found[service].get(copies, cost))
                _log.info("%d x %s: %.3f ms CPU a message", copies, service, cost)
    return found


def worst_deviation(found: dict[str, dict[int, float]]) -> float:
    """How far a number of processes is from one process in work done per CPU second, as a fraction."""
    return max(abs(costs[1] / cost - 1) for costs in found.values() for cost in costs.values())


def table(found: dict[str, dict[int, float]]) -> Sequence[str]:
    """Rows for a person."""
    lines = [
        "| processes | " + " | ".join(f"{service} ms/message" for service in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    return [
        *lines,
        *(
            f"| {copies} | " + " | ".join(f"{costs[copies]:.3f}" for costs in found.values()) + " |"
            for copies in COPIES
        ),
    ]


def _with(service: str, copies: int) -> type[PostrailOnKafka]:
    return type("Scaled", (PostrailOnKafka,), {"copies": {service: copies}})
