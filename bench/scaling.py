"""Whether twice the processes of a service cost twice the CPU: work done per CPU second with 1, 2 and 4 of them.

Owns: the comparison over numbers of processes. On a machine with fewer cores than processes the rate stays the same; what is
compared is the CPU that the service takes for a message. It is taken twice: while mail comes in, where more processes each have
less to do at a time; and while they work through what waits for them, which is what more processes are started for.
"""

import logging
from collections.abc import Sequence

from bench.comparison import Work, measure
from bench.systems import PostrailOnKafka

_log = logging.getLogger("bench")

SERVICES = ("signing", "sender")
COPIES = (1, 2, 4)
ARGUMENTS = {"sender": ("--destination", "default")}
"""A sender serves one destination group, as the operator starts them; all this mail is for that of the other sites."""
ARRIVING = "as it arrives"
WAITING = "waiting"

Costs = dict[tuple[str, str], dict[int, float]]
"""CPU milliseconds a message by (service, whether its mail arrives or waits) and number of processes."""


def measure_scaling(work: Work, sessions: int) -> Costs:
    """The costs of each service of SERVICES: the least of the rounds."""
    found: Costs = {(service, how): {} for service in SERVICES for how in (ARRIVING, WAITING)}
    for _ in range(work.rounds):
        for (service, how), costs in found.items():
            for copies in COPIES:
                held = service if how == WAITING else None
                measured = measure(_with(service, copies), work, sessions, held=held)
                cost = measured.parts_cpu_seconds[service] * 1000 / measured.messages
                costs[copies] = min(cost, costs.get(copies, cost))
                _log.info("%d x %s, mail %s: %.3f ms CPU a message", copies, service, how, cost)
    return found


def worst_deviation(found: Costs, how: str) -> float:
    """How far a number of processes is from one process in work done per CPU second, as a fraction."""
    return max(abs(costs[1] / cost - 1) for (_, one), costs in found.items() if one == how for cost in costs.values())


def table(found: Costs) -> Sequence[str]:
    """Rows for a person."""
    lines = [
        "| processes | " + " | ".join(f"{service} ms/message, mail {how}" for service, how in found) + " |",
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
    return type("Scaled", (PostrailOnKafka,), {"copies": {service: copies}, "arguments": ARGUMENTS})
