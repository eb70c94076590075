"""Whether more processes of a service do the same work with as much CPU: with 1, 2 and 4 of them.

Owns the comparison over numbers of processes. On a machine with fewer cores than processes the rate stays the same; what is
compared is the CPU that a message takes, of that service and of the whole system, broker included: smaller pieces cost the
neighbours, too. It is taken three times, on cores that are kept busy:

- while they work through what waits for them, which is what more processes are started for;
- while mail comes in as fast as it can, so that each of more processes has less to do at a time;
- while as much mail comes in for each of them: how much a process has to do changes what a message costs it, too, and here it
  is the same for all numbers. The others' share is not: they have less to do at a time when there is one process.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
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
AS_MUCH_EACH = "as much for each"
PER_SECOND = 100.0
"""For each process, where each gets as much: four times it is less than what two cores can do."""


class Cost(NamedTuple):
    """CPU milliseconds a message."""

    service: float
    system: float


Costs = dict[tuple[str, str], dict[int, list[Cost]]]
"""By (service, how its mail comes) and number of processes; one of each round."""


def measure_scaling(work: Work, sessions: int) -> Costs:
    """The costs with each service of SERVICES. What is compared is measured one right after the other: a machine changes."""
    found: Costs = {
        (service, how): {copies: [] for copies in COPIES}
        for service in SERVICES
        for how in (ARRIVING, WAITING, AS_MUCH_EACH)
    }
    with busy_cores():
        for _ in range(work.rounds):
            for (service, how), costs in found.items():
                for copies in COPIES:
                    costs[copies].append(_measure(work, sessions, service, how, copies))
    return found


def _measure(work: Work, sessions: int, service: str, how: str, copies: int) -> Cost:
    per_second = None
    if how == AS_MUCH_EACH:
        per_second = PER_SECOND * copies
        work = replace(work, messages=work.messages * copies // max(COPIES))
    held = service if how == WAITING else None
    measured = measure(_with(service, copies), work, sessions, held=held, per_second=per_second)
    own = measured.parts_cpu_seconds[service] * 1000 / measured.messages
    cost = Cost(own, measured.cpu_milliseconds_per_message)
    _log.info("%d x %s, mail %s: %.3f ms CPU a message, system %.3f", copies, service, how, *cost)
    return cost


def deviations(found: Costs) -> dict[str, float]:
    """How far a number of processes is from one in work done per CPU second, at most, as a fraction; by what is compared.

    Of each number the median of its rounds, each against one process in the same round. That of the system is not compared
    where each process gets as much: its other services do not.
    """
    result: dict[str, float] = {}
    for (service, how), costs in found.items():
        if how != AS_MUCH_EACH:
            result[f"the system, {service}'s mail {how}"] = _worst(costs, lambda cost: cost.system)
        result[f"{service}, mail {how}"] = _worst(costs, lambda cost: cost.service)
    return result


def _worst(costs: dict[int, list[Cost]], pick: Callable[[Cost], float]) -> float:
    return max(
        abs(median(pick(one) / pick(several) for one, several in zip(costs[1], costs[copies], strict=True)) - 1)
        for copies in COPIES
    )


def table(found: Costs) -> Sequence[str]:
    """Rows for a person: medians."""
    lines = [
        "| processes | "
        + " | ".join(f"{service}, mail {how}: its ms/message, the system's" for service, how in found)
        + " |",
        "|---|" + "---|" * len(found),
    ]
    for copies in COPIES:
        of_copies = [costs[copies] for costs in found.values()]
        cells = [
            f"{median(cost.service for cost in rounds):.3f}, {median(cost.system for cost in rounds):.3f}"
            for rounds in of_copies
        ]
        lines.append(f"| {copies} | {' | '.join(cells)} |")
    return lines


def _with(service: str, copies: int) -> type[PostrailOnKafka]:
    return type("Scaled", (PostrailOnKafka,), {"copies": {service: copies}, "arguments": ARGUMENTS})
