"""Postrail under load for a long time: does memory or the number of open files keep growing?"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from bench import process_tree
from bench.load import send
from bench.systems import Postrail, System
from bench.workplace import prepared

_log = logging.getLogger("bench")

_BATCH_MESSAGES = 5000
_SESSIONS = 20
_STALL_SECONDS = 120.0
_SETTLE_SECONDS = 5.0
_GROWTH_LIMIT = 1.25


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the system's processes hold between two batches."""

    memory_bytes: int
    open_files: int


@dataclass(frozen=True, slots=True)
class SoakResult:
    """Footprints after each batch, oldest first."""

    footprints: list[Footprint]

    @property
    def grows(self) -> bool:
        """The last footprint exceeds that of the middle of the run by more than a quarter."""
        middle, last = self.footprints[len(self.footprints) // 2], self.footprints[-1]
        return (
            last.memory_bytes > middle.memory_bytes * _GROWTH_LIMIT
            or last.open_files > middle.open_files * _GROWTH_LIMIT
        )


def soak(*, seconds: float, size_bytes: int) -> SoakResult:
    """Send batch after batch until the time is over, three at least."""
    footprints: list[Footprint] = []
    deadline = time.monotonic() + seconds
    with prepared(Postrail) as (subject, sink):
        subject.start()
        while len(footprints) < 3 or time.monotonic() < deadline:
            send(subject.port, messages=_BATCH_MESSAGES, sessions=_SESSIONS, size_bytes=size_bytes)
            sink.wait_for((len(footprints) + 1) * _BATCH_MESSAGES, _STALL_SECONDS)
            time.sleep(_SETTLE_SECONDS)
            footprints.append(_footprint(subject))
            _log.info(
                "%d messages: %.0f MB, %d open files",
                len(footprints) * _BATCH_MESSAGES,
                footprints[-1].memory_bytes / 1e6,
                footprints[-1].open_files,
            )
    return SoakResult(footprints)


def _footprint(subject: System) -> Footprint:
    stats = process_tree.tree(subject.root_pids())
    return Footprint(
        memory_bytes=process_tree.pss_bytes(subject.root_pids()),
        open_files=sum(len(list(Path(f"/proc/{stat.pid}/fd").iterdir())) for stat in stats),
    )
