"""The comparison: each system does the same work in turn, in alternating order, several rounds.

Owns: what is measured and how. ``bench.report`` shows it.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import process_tree
from bench.load import BenchmarkError, SourceRun, send
from bench.paced_source import send_paced
from bench.systems import System
from bench.workplace import prepared

_log = logging.getLogger("bench")

_WARM_UP_MESSAGES = 500
_SETTLE_SECONDS = 1.0
_STALL_SECONDS = 60.0
_REST_SECONDS = 0.5
_REST_CPU_SHARE = 0.25
"""Of one core: a broker and services without mail take less."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every system is given."""

    messages: int
    size_bytes: int
    sessions: Sequence[int]
    rounds: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """One system's run of the work with one number of sessions.

    ``seconds`` is from the start of the source until the last message reached the sink; ``accept_seconds`` until the
    source had its last 250. CPU is that of the system's own processes, until a second after the last message.
    """

    system: str
    sessions: int
    messages: int
    seconds: float
    accept_seconds: float
    cpu_seconds: float
    source_cpu_seconds: float
    sink_cpu_seconds: float
    peak_memory_bytes: int
    parts_cpu_seconds: dict[str, float]
    """The system's CPU time by process."""

    @property
    def messages_per_second(self) -> float:
        """End to end."""
        return self.messages / self.seconds

    @property
    def cpu_milliseconds_per_message(self) -> float:
        """The system's own."""
        return self.cpu_seconds * 1000 / self.messages

    @property
    def load_milliseconds_per_message(self) -> float:
        """CPU of source and sink together."""
        return (self.source_cpu_seconds + self.sink_cpu_seconds) * 1000 / self.messages


def measure(
    system: type[System], work: Work, sessions: int, *, held: str | None = None, per_second: float | None = None
) -> Measurement:
    """Start the system fresh, warm it up and measure it once.

    Args:
        held: a part of it that stands still until all others are done, and then works through what waits for it.
        per_second: how fast messages are submitted; where nothing is said, as fast as the sessions can.

    Raises:
        BenchmarkError: it did not start, refused, lost or repeated a message.
    """
    with prepared(system) as (subject, sink):
        subject.start()
        send(subject.port, messages=_WARM_UP_MESSAGES, sessions=sessions, size_bytes=work.size_bytes)
        sink.wait_for(_WARM_UP_MESSAGES, _STALL_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        expected = _WARM_UP_MESSAGES + work.messages
        roots = subject.root_pids()
        cpu_before, sink_before = process_tree.cpu_seconds(roots), sink.cpu_seconds()
        parts_before = subject.cpu_seconds_by_part()
        with process_tree.PeakMemory(roots) as memory:
            if held is not None:
                subject.hold(held)
            source = _submit(subject.port, work, sessions, per_second)
            if held is not None:
                _wait_for_rest(subject)
                subject.let_go(held)
            sink.wait_for(expected, _STALL_SECONDS)
            ended_at_seconds = sink.changed_at_seconds()
            time.sleep(_SETTLE_SECONDS)
        cpu_after, sink_after = process_tree.cpu_seconds(roots), sink.cpu_seconds()
        parts_after = subject.cpu_seconds_by_part()
        if sink.count() != expected:
            raise BenchmarkError(f"{subject.label}: the sink has {sink.count()} messages instead of {expected}")
    measurement = Measurement(
        system=system.name,
        sessions=sessions,
        messages=work.messages,
        seconds=ended_at_seconds - source.started_at_seconds,
        accept_seconds=source.ended_at_seconds - source.started_at_seconds,
        cpu_seconds=cpu_after - cpu_before,
        source_cpu_seconds=source.cpu_seconds,
        sink_cpu_seconds=sink_after - sink_before,
        peak_memory_bytes=memory.peak_bytes,
        parts_cpu_seconds={part: seconds - parts_before.get(part, 0.0) for part, seconds in parts_after.items()},
    )
    _log.info(
        "%s, %d sessions: %.0f messages/s (accepted at %.0f/s), %.2f ms CPU a message (source and sink: %.2f), %.0f MB",
        system.label,
        sessions,
        measurement.messages_per_second,
        work.messages / measurement.accept_seconds,
        measurement.cpu_milliseconds_per_message,
        measurement.load_milliseconds_per_message,
        measurement.peak_memory_bytes / 1e6,
    )
    return measurement


def _submit(port: int, work: Work, sessions: int, per_second: float | None) -> SourceRun:
    if per_second is None:
        return send(port, messages=work.messages, sessions=sessions, size_bytes=work.size_bytes)
    return send_paced(
        port, messages=work.messages, per_second=per_second, sessions=sessions, size_bytes=work.size_bytes
    )


def _wait_for_rest(subject: System) -> None:
    """Until the system does next to nothing."""
    cpu_seconds, deadline = 0.0, time.monotonic() + _STALL_SECONDS
    while time.monotonic() < deadline:
        before, cpu_seconds = cpu_seconds, process_tree.cpu_seconds(subject.root_pids())
        if cpu_seconds - before < _REST_CPU_SHARE * _REST_SECONDS:
            return
        time.sleep(_REST_SECONDS)
    raise BenchmarkError(f"{subject.label} is still at work {_STALL_SECONDS:.0f} s after the last message")


def compare(systems: Sequence[type[System]], work: Work) -> list[Measurement]:
    """Measure every system with every number of sessions; every other round goes backwards."""
    measurements: list[Measurement] = []
    for round_number in range(work.rounds):
        order = list(systems) if round_number % 2 == 0 else list(reversed(systems))
        for sessions in work.sessions:
            _log.info("round %d of %d, %d sessions", round_number + 1, work.rounds, sessions)
            measurements += [measure(system, work, sessions) for system in order]
    return measurements
