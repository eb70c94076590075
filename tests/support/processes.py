"""Starts and ends the programs that tests run: free ports, waiting for what must come true, folders that daemons can enter.

Owns no knowledge of any program. A program that does not come up in time fails with the end of its log. Its neighbours:
`postfix`, `dovecot`, `smtp_tools` and `postrail_process`, which each start one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TypeVar

import pytest

Found = TypeVar("Found")
POLL_SECONDS = 0.02


@contextlib.contextmanager
def daemon_folder(name: str) -> Iterator[Path]:
    """A temporary folder that daemons of other users may pass through, with a path short enough for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port that no address of this machine uses now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def accepts(address: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for(what: str, probe: Callable[[], Found | None], seconds: float = 15.0) -> Found:
    """Return the probe's first answer that is true; fail the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds:g} s still waiting for: {what}")
        time.sleep(POLL_SECONDS)


class Daemon:
    """One program in its own process group, its output in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, *, environment: dict[str, str] | None = None) -> None:
        self.log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )

    @property
    def pid(self) -> int:
        """The process, which is also its group."""
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(number)

    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def wait_until(self, what: str, ready: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait until it is ready; fail with its log when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.status() is not None or time.monotonic() > deadline:
                state = "runs" if self.status() is None else f"ended with {self.status()}"
                self.kill()
                pytest.fail(f"{self._name} ({state}) is not ready: {what}\n{tail(self.log)}")
            time.sleep(POLL_SECONDS)

    def stop(self, seconds: float = 15.0, number: int = SIGTERM) -> int:
        """Signal the process and return its exit status; after the given time the group is killed."""
        if self.status() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()
        finally:
            self._kill_group()

    def kill(self) -> int:
        """End the whole group at once."""
        self._kill_group()
        return self._process.wait(5)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, SIGKILL)


def tail(log: Path, lines: int = 60) -> str:
    """The end of a log."""
    if not log.exists():
        return f"({log} was not written)"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
