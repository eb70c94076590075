"""What the benchmark asks of a system under test: start, port, processes, stop.

Owns: the processes' life. The subclasses beside it know how each system is configured.
"""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench import process_tree
from bench.dkim_key import DkimKey
from bench.load import free_port, wait_for_greeting

_START_SECONDS = 60
_STOP_SECONDS = 45


@dataclass(frozen=True, slots=True)
class Setup:
    """What a system is started with: its own directory, where mail goes, and the key that signs it."""

    directory: Path
    sink_port: int
    key: DkimKey
    down_port: int
    """A loopback port where nothing listens: the site of ``DOWN_DOMAIN``."""


class System(ABC):
    """One mail system, run from its own directory on loopback ports."""

    name: ClassVar[str]
    label: ClassVar[str]

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names: dict[int, str] = {}

    @staticmethod
    @abstractmethod
    def version() -> str:
        """Return the versions of the parts, for the results.

        Raises:
            BenchmarkError: a part is not installed.
        """

    @abstractmethod
    def launch(self) -> None:
        """Write the configuration and start the processes through ``spawn``."""

    def start(self) -> None:
        """Start the system and wait until it greets.

        Raises:
            BenchmarkError: it did not start; the text names the log.
        """
        self.launch()
        wait_for_greeting(self.port, _START_SECONDS, f"{self.label} (logs in {self.setup.directory})")

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start one process in a session of its own, with its output in ``name.log``."""
        with (self.setup.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                cwd=self.setup.directory,
            )
        self._processes.append(process)
        self._names[process.pid] = name

    def root_pids(self) -> list[int]:
        """Return the processes whose trees are the system."""
        return [process.pid for process in self._processes]

    def cpu_seconds_by_part(self) -> dict[str, float]:
        """Return the CPU time of each process's tree; processes whose names differ by a number only are one part."""
        parts: dict[str, float] = {}
        for process in self._processes:
            part = _part(self._names[process.pid])
            parts[part] = parts.get(part, 0.0) + process_tree.cpu_seconds([process.pid])
        return parts

    def hold(self, part: str) -> None:
        """Stop the processes of a part in their tracks, so that work waits for them."""
        self._signal(part, signal.SIGSTOP)

    def let_go(self, part: str) -> None:
        """Let the processes of a part go on after `hold`."""
        self._signal(part, signal.SIGCONT)

    def _signal(self, part: str, number: signal.Signals) -> None:
        for pid, name in self._names.items():
            if _part(name) == part:
                for member in process_tree.tree([pid]):
                    os.kill(member.pid, number)

    def stop(self) -> None:
        """Ask the processes to end, last started first; kill what is left of their trees."""
        for process in reversed(self._processes):
            members = process_tree.tree([process.pid])
            self.ask_to_end(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            for member in members:
                if process_tree.is_same(member):
                    os.kill(member.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        """Begin an orderly end of one process that ``launch`` started."""
        process.terminate()


def _part(name: str) -> str:
    """Of a process's name: without its number."""
    return name.rstrip("-0123456789")
