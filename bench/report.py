"""Tables of the comparison, as Markdown. Pure but for ``machine_facts``, which reads what this machine is."""

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.comparison import Measurement, Work
from bench.systems import SYSTEMS, System
from bench.workplace import file_system

BASELINE = "postfix"
_QUIET_LOAD = 0.5


def machine_facts(directory: Path) -> list[str]:
    """Describe this machine, and whether it was quiet when the run began. ``directory`` is where the queues lie."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    quiet = "" if load < _QUIET_LOAD else " (**not quiet: other work disturbed this run**)"
    return [
        f"{os.cpu_count()} cores ({platform.machine()}), {memory_gib:.0f} GiB, Linux {platform.release()}",
        f"queues on {file_system(directory)}",
        f"load average before the run {load:.2f}{quiet}",
    ]


def spread(values: Sequence[float], digits: int) -> str:
    """Show ``median (min-max)``."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def table(measurements: Sequence[Measurement], sessions: int) -> list[str]:
    """Return the rows of one number of sessions, with the ratios of the medians to the baseline's."""
    names = [name for name in SYSTEMS if any(m.system == name and m.sessions == sessions for m in measurements)]

    def values(name: str, value: Callable[[Measurement], float]) -> list[float]:
        return [value(m) for m in measurements if m.system == name and m.sessions == sessions]

    def ratio(name: str, value: Callable[[Measurement], float]) -> str:
        if BASELINE not in names:
            return "–"
        baseline = statistics.median(values(BASELINE, value))
        return f"{statistics.median(values(name, value)) / baseline:.2f} ×"

    def rate(m: Measurement) -> float:
        return m.messages_per_second

    def cpu(m: Measurement) -> float:
        return m.cpu_milliseconds_per_message

    def memory(m: Measurement) -> float:
        return m.peak_memory_bytes / 1e6

    def load(m: Measurement) -> float:
        return m.load_milliseconds_per_message

    lines = [
        "| system | messages/s | ratio | CPU ms/message | ratio | peak memory MB | ratio | source + sink ms/message |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        cells = [SYSTEMS[name].label]
        for value, digits in ((rate, 0), (cpu, 2), (memory, 0)):
            cells += [spread(values(name, value), digits), ratio(name, value)]
        cells.append(spread(values(name, load), 2))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parts_table(measurements: Sequence[Measurement]) -> list[str]:
    """Return, for each system of several processes, the median CPU of each process a message."""
    lines: list[str] = []
    for name in SYSTEMS:
        own = [m for m in measurements if m.system == name]
        parts = sorted({part for m in own for part in m.parts_cpu_seconds})
        if len(parts) < 2:
            continue
        lines += [f"{SYSTEMS[name].label}:", "", "| process | CPU ms/message |", "|---|---|"]
        for part in parts:
            values = [m.parts_cpu_seconds.get(part, 0.0) * 1000 / m.messages for m in own]
            lines.append(f"| {part} | {spread(values, 3)} |")
        lines.append("")
    return ["## CPU by process", "", *lines] if lines else []


def render(
    measurements: Sequence[Measurement], work: Work, systems: Sequence[type[System]], facts: Sequence[str]
) -> str:
    """Return the whole results page.

    Args:
        facts: from ``machine_facts``, taken before the run.
    """
    lines = [
        "# Postrail beside its peers",
        "",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Written by `make bench`; `bench/README.md` says how it measures.",
        "",
        f"Work: {work.messages:,} messages of {work.size_bytes:,} bytes, one recipient each, DKIM RSA-2048 relaxed/relaxed,",
        "durable queue, to the same smtp-sink, on loopback; one smtp-source for the given sessions, and both take their",
        f"CPU from the same cores. Each cell is the median of {work.rounds} round(s) (min–max); ratios are to Postfix+OpenDKIM.",
        "",
        *(f"- {fact}" for fact in facts),
        *(f"- {system.version()}" for system in systems),
        "",
    ]
    for sessions in work.sessions:
        lines += [f"## {sessions} sessions", "", *table(measurements, sessions), ""]
    lines += parts_table(measurements)
    return "\n".join(lines)
