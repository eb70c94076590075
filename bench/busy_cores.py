"""Keeps every core of the machine busy with work that yields to any other.

A core beside an idle one works faster, as the two share execution units and a clock: one process of a service alone would look
cheaper than two, whatever the service does. With this beside them all measurements are taken on equally busy cores.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"


@contextmanager
def busy_cores() -> Iterator[None]:
    """Run one process a core that counts for nothing (SCHED_IDLE, sched(7)) until the end of the block."""
    spinning = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
