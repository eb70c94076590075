"""Whether more processes of a service do the same work with as much CPU: with 1, 2 and 4 of them.

Owns: the comparison over numbers of processes. On a machine with fewer cores than processes the rate stays the same; what is
compared is the CPU that a message takes, of that service and of the whole system, broker included: smaller pieces cost the
neighbours, too. It is taken twice: while mail comes in, where more processes each have less to do at a time; and while they
work through what waits for them, which is what more processes are started for. All on cores that are kept busy.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.busy_cores import busy_cores
from bench.comparison import Work, measure
from bench.systems import PostrailOnKafka

_log = logging.getLogger("bench")

SERVICES = ("signing", "sender")
COPIES = (1, 2, 4)
ARGUMENTS = {"sender": ("--destination", "default")}
"""A sender serves one destination group, as the operator starts them; all this mail is for that of the other sites."""
ARRIVING = "as it arrives"
WAITING = "waiting"


class Cost(NamedTuple):
    """CPU milliseconds a message."""

    service: float
    system: float


Costs = dict[tuple[str, str], dict[int, Cost]]
"""By (service, whether its mail arrives or waits) and number of processes."""


def measure_scaling(work: Work, sessions: int) -> Costs:
    """The costs with each service of SERVICES: those of the round in which the system's was least."""
    found: Costs = {(service, how): {} for service in SERVICES for how in (ARRIVING, WAITING)}
    with busy_cores():
        for _ in range(work.rounds):
            for (service, how), costs in found.items():
                for copies in COPIES:
                    cost = _measure(work, sessions, service, how, copies)
                    costs[copies] = min(cost, costs.get(copies, cost), key=lambda one: one.system)
    return found


def _measure(work: Work, sessions: int, service: str, how: str, copies: int) -> Cost:
    measured = measure(_with(service, copies), work, sessions, held=service if how == WAITING else None)
    own = measured.parts_cpu_seconds[service] * 1000 / measured.messages
    cost = Cost(own, measured.cpu_milliseconds_per_message)
    _log.info("%d x %s, mail %s: %.3f ms CPU a message, system %.3f", copies, service, how, *cost)
    return cost


def worst_deviation(found: Costs, pick: Callable[[Cost], float]) -> float:
    """How far a number of processes is from one process in work done per CPU second, as a fraction."""
    return max(abs(pick(costs[1]) / pick(cost) - 1) for costs in found.values() for cost in costs.values())


def table(found: Costs) -> Sequence[str]:
    """Rows for a person."""
    lines = [
        "| processes | "
        + " | ".join(f"{service}, mail {how}: its ms/message, the system's" for service, how in found)
        + " |",
        "|---|" + "---|" * len(found),
    ]
    return [
        *lines,
        *(
            f"| {copies} | " + " | ".join("{:.3f}, {:.3f}".format(*costs[copies]) for costs in found.values()) + " |"
            for copies in COPIES
        ),
    ]


def _with(service: str, copies: int) -> type[PostrailOnKafka]:
    return type("Scaled", (PostrailOnKafka,), {"copies": {service: copies}, "arguments": ARGUMENTS})
