"""CPU time and memory of a system's processes, read from /proc.

Owns: the walk over a process tree and its sums. Never starts or ends a process. Used by everything that measures here.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.2
_SAMPLE_LARGEST_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says: the parent, and CPU seconds of the process and of its exited, awaited children."""

    pid: int
    parent_pid: int
    cpu_seconds: float
    started_at_ticks: int


def read_stat(pid: int) -> ProcessStat | None:
    """Read one process; None when it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])
    return ProcessStat(pid, int(fields[1]), ticks / _TICKS_A_SECOND, int(fields[19]))


def is_same(earlier: ProcessStat) -> bool:
    """Tell whether the process still lives, and not another one under its pid."""
    now = read_stat(earlier.pid)
    return now is not None and now.started_at_ticks == earlier.started_at_ticks


def tree(roots: Sequence[int]) -> list[ProcessStat]:
    """Return the living processes that are in ``roots`` or descend from them."""
    children: dict[int, list[ProcessStat]] = {}
    found: list[ProcessStat] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        stat = read_stat(int(entry.name))
        if stat is None:
            continue
        if stat.pid in roots:
            found.append(stat)
        else:
            children.setdefault(stat.parent_pid, []).append(stat)
    for stat in found:  # grows while it is walked
        found.extend(children.get(stat.pid, ()))
    return found


def cpu_seconds(roots: Sequence[int]) -> float:
    """Sum user and system time of the trees, exited children included (utime, stime, cutime, cstime)."""
    return sum(stat.cpu_seconds for stat in tree(roots))


def pss_bytes(roots: Sequence[int]) -> int:
    """Sum the proportional set size of the trees: shared pages are counted once, not once a process."""
    return sum(_field_bytes(stat.pid, "smaps_rollup", "Pss:") for stat in tree(roots))


def peak_rss_bytes(pid: int) -> int:
    """Return a process's resident high-water mark since it started (VmHWM); 0 when it has gone."""
    return _field_bytes(pid, "status", "VmHWM:")


def command_line(pid: int) -> str:
    """Return a process's arguments separated by spaces; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _field_bytes(pid: int, file: str, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def machine_ticks() -> tuple[int, int]:
    """Return the machine's ticks since boot that were stolen by its host, and all of them."""
    with Path("/proc/stat").open() as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return fields[7], sum(fields)


class PeakMemory:
    """Samples the trees' proportional set size in a thread while the block runs; ``peak_bytes`` is the largest sum seen.

    Samples every 0.2 s, but seldom enough to take a fiftieth of a core at most: a tree of 100 processes costs 50 ms.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self.peak_bytes = 0
        self._roots = roots
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            before_seconds = time.thread_time()
            self.peak_bytes = max(self.peak_bytes, pss_bytes(self._roots))
            cost_seconds = time.thread_time() - before_seconds
            if self._ended.wait(max(_SAMPLE_SECONDS, cost_seconds / _SAMPLE_LARGEST_SHARE)):
                return
