"""Starts `postrail` quickly and often: a process that has everything imported, and forks a child for each start.

`python -m tests.support.chaos_launcher [BREAKAGE]` reads command lines (JSON arrays) from standard input, one at a time. For
each it prints the child's process id, and, when the child has ended, its exit status. The child runs the very `main` of the
command; only the second that Python needs to import it is saved, so that a hundred crashes fit in a minute. Child and
launcher end with their parent. Neighbours: `chaos_world` talks to it, `chaos_broken` has the breakages.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from postrail.cli.main import main as postrail_main
from tests.support import chaos_broken

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Serve until standard input ends."""
    _end_with_parent()
    for name in arguments:
        chaos_broken.apply(name)
    assert threading.active_count() == 1, "a fork takes only this thread along"
    gc.freeze()
    while line := sys.stdin.readline():
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(command)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return 0


def _run(command: Sequence[str]) -> NoReturn:
    status = 1
    try:
        _end_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        random.seed()
        status = postrail_main(command)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
