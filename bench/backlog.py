"""Postrail's rate with a long queue against its rate with an empty one.

Two instances, each with its own data. One is filled with mail to a domain whose site is down. They are started and
measured in turn, one at a time, each round in the other order.
"""

import logging
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench import process_tree
from bench.load import Sink, send
from bench.systems import Postrail, System
from bench.systems.postrail import DOWN_DOMAIN
from bench.workplace import prepared

_log = logging.getLogger("bench")

_SESSIONS = 20
_STALL_SECONDS = 120.0
_QUIET_SHARE = 0.25
_QUIET_TIMEOUT_SECONDS = 300.0
_WARM_UP_MESSAGES = 500


@dataclass(frozen=True, slots=True)
class BacklogResult:
    """Messages a second of each round, with an empty queue and with the waiting mail."""

    waiting: int
    empty: list[float]
    full: list[float]

    @property
    def ratio(self) -> float:
        """Median with the waiting mail over median without."""
        return statistics.median(self.full) / statistics.median(self.empty)


def measure_backlog(*, waiting: int, messages: int, size_bytes: int, rounds: int) -> BacklogResult:
    """Fill one instance with ``waiting`` messages and measure both in turn."""
    with ExitStack() as stack:
        empty, empty_sink = stack.enter_context(prepared(Postrail))
        full, full_sink = stack.enter_context(prepared(Postrail))
        full.start()
        _log.info("queueing %d messages for a site that is down", waiting)
        send(full.port, messages=waiting, sessions=_SESSIONS, size_bytes=size_bytes, recipient_domain=DOWN_DOMAIN)
        _wait_until_quiet(full)
        full.stop()
        rates: dict[str, list[float]] = {"empty": [], "full": []}
        for round_number in range(rounds):
            pairs = [("empty", empty, empty_sink), ("full", full, full_sink)]
            for name, subject, sink in pairs if round_number % 2 == 0 else reversed(pairs):
                rate = _rate(subject, sink, messages, size_bytes)
                _log.info("round %d, %s queue: %.0f messages/s", round_number + 1, name, rate)
                rates[name].append(rate)
    return BacklogResult(waiting, rates["empty"], rates["full"])


def _rate(subject: System, sink: Sink, messages: int, size_bytes: int) -> float:
    subject.start()
    _wait_until_quiet(subject)
    target = sink.count() + _WARM_UP_MESSAGES
    send(subject.port, messages=_WARM_UP_MESSAGES, sessions=_SESSIONS, size_bytes=size_bytes)
    sink.wait_for(target, _STALL_SECONDS)
    time.sleep(1)
    source = send(subject.port, messages=messages, sessions=_SESSIONS, size_bytes=size_bytes)
    sink.wait_for(target + messages, _STALL_SECONDS)
    seconds = sink.changed_at_seconds() - source.started_at_seconds
    subject.stop()
    return messages / seconds


def _wait_until_quiet(subject: System) -> None:
    """Wait until the system takes less than a quarter of a core for three seconds, or five minutes at most."""
    deadline = time.monotonic() + _QUIET_TIMEOUT_SECONDS
    quiet_seconds = 0
    before = process_tree.cpu_seconds(subject.root_pids())
    while quiet_seconds < 3 and time.monotonic() < deadline:
        time.sleep(1)
        now = process_tree.cpu_seconds(subject.root_pids())
        quiet_seconds = quiet_seconds + 1 if now - before < _QUIET_SHARE else 0
        before = now
    if quiet_seconds < 3:
        _log.warning("%s is still busy after %.0f s; measuring all the same", subject.label, _QUIET_TIMEOUT_SECONDS)
