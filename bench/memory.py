"""Peak memory of Postrail's workers while several sessions submit large messages at once."""

import logging
from dataclasses import dataclass

from bench import process_tree
from bench.load import send
from bench.systems import Postrail
from bench.workplace import prepared

_log = logging.getLogger("bench")

_STALL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """Resident high-water mark of each process since its start, by pid."""

    peak_rss_bytes: dict[int, int]

    @property
    def largest_bytes(self) -> int:
        """That of the largest process."""
        return max(self.peak_rss_bytes.values())


def measure_memory(*, messages: int, sessions: int, size_bytes: int) -> MemoryResult:
    """Submit and deliver the messages, and return the peaks (VmHWM: exact, not sampled)."""
    with prepared(Postrail) as (subject, sink):
        subject.start()
        send(subject.port, messages=messages, sessions=sessions, size_bytes=size_bytes)
        sink.wait_for(messages, _STALL_SECONDS)
        stats = process_tree.tree(subject.root_pids())
        peaks = {stat.pid: process_tree.peak_rss_bytes(stat.pid) for stat in stats}
    for pid, peak in peaks.items():
        _log.info("process %d: peak %.0f MB", pid, peak / 1e6)
    return MemoryResult(peaks)
