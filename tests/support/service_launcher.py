"""Starts service processes quickly: one process has everything imported, and forks a child for each start.

`python -m tests.support.service_launcher` reads orders from standard input, a JSON object a line, and answers each with the
child's process id; a child's exit status goes to the file that its order names. A child runs the very `main` of the command:
only the second or two that Python needs to import it are saved, so that many starts fit in a minute. The launcher ends with its
standard input, its children end with it. `Launcher` is the side of the tests; neighbours: `kafka_world` starts services with
it, `chaos_launcher` does the same for one `postrail up`, `chaos_broken` has the breakages.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from postrail.cli.main import main as postrail_main
from tests.support import chaos_broken

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01
_REPOSITORY = Path(__file__).parents[2]


@dataclass(slots=True)
class Launched:
    """A process that a launcher started."""

    pid: int
    _status_file: Path

    @property
    def returncode(self) -> int | None:
        """Its exit status (negative: the signal that ended it); None while it runs."""
        return int(self._status_file.read_text()) if self._status_file.exists() else None

    def send_signal(self, number: int) -> None:
        """Send it a signal; harmless when it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        while (status := self.returncode) is None:  # noqa: ASYNC110  # another process tells, by a file
            await asyncio.sleep(_POLL_SECONDS)
        return status


class Launcher:
    """The launcher's process, begun with the first `launch` and ended with the tests' process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._count = 0

    def launch(
        self, arguments: Sequence[str], output: Path, environment: Mapping[str, str], breakage: str | None = None
    ) -> Launched:
        """Start `postrail` with these arguments; what it prints is added to `output`. Blocks for a moment."""
        with self._lock:
            process = self._process = self._process or self._begin()
            assert process.stdin is not None
            assert process.stdout is not None
            self._count += 1
            status_file = output.with_suffix(f".{self._count}.status")
            order = {
                "arguments": list(arguments),
                "output": str(output),
                "status": str(status_file),
                "environment": dict(environment),
                "breakage": breakage,
            }
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            return Launched(int(process.stdout.readline()), status_file)

    def _begin(self) -> subprocess.Popen[bytes]:
        atexit.register(self.close)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.service_launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_REPOSITORY,
            start_new_session=True,
        )

    def close(self) -> None:
        """End the launcher and all that it has started."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


LAUNCHER = Launcher()
"""One for all tests of the run."""


def _serve() -> None:
    """Serve until standard input ends."""
    assert threading.active_count() == 1, "a fork takes only this thread along"
    gc.freeze()
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    statuses: dict[int, str] = {}
    orders = os.fdopen(0, "rb", buffering=0)
    while True:
        readable, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(statuses)
        if orders.fileno() in readable:
            line = orders.readline()
            if not line:
                return
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.closerange(woken, wakes + 1)
                _run(order)
            statuses[pid] = order["status"]
            os.write(1, f"{pid}\n".encode())


def _reap(statuses: dict[int, str]) -> None:
    """Tell of the children that have ended."""
    for pid in list(statuses):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            path = Path(statuses.pop(pid))
            part = path.with_suffix(".part")
            part.write_text(str(os.waitstatus_to_exitcode(status)))
            part.rename(path)


def _run(order: Mapping[str, Any]) -> NoReturn:
    status = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(order["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), 1)
        os.dup2(1, 2)
        os.environ.update(order["environment"])
        random.seed()
        if order["breakage"]:
            chaos_broken.apply(order["breakage"])
        status = postrail_main(order["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
