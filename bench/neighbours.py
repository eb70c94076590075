"""Processes that do nothing but compute, so that a measurement has as many busy processes beside it as another one had.

Owns their work, start and end. A processor that more processes want than it has cores does each one's work slower: caches and
pipelines are filled anew at each turn. Where that must be the same on both sides of a comparison, these take the places.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric import rsa


@contextmanager
def busy_neighbours(count: int) -> Iterator[None]:
    """So many of them, until the block ends."""
    started = [subprocess.Popen([sys.executable, "-m", __name__]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
        for process in started:
            process.wait()


def _compute() -> None:
    while True:
        rsa.generate_private_key(public_exponent=65537, key_size=2048)


if __name__ == "__main__":
    _compute()
