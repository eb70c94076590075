"""The directory that one run of a system lives in: on a real disk, and removed at the end.

Owns: making it and the ``Setup`` in it. Used by every kind of measurement.
"""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.dkim_key import make_dkim_key
from bench.load import BenchmarkError, Sink, free_port
from bench.systems import Setup, System

_log = logging.getLogger("bench")


def file_system(path: Path) -> str:
    """Return the name of the file system that ``path`` is on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def directory() -> Iterator[Path]:
    """Make a directory that daemons under other accounts can enter; kept when BENCH_KEEP is set.

    Raises:
        BenchmarkError: the temporary directory is not on a disk, so durability would cost nothing.
    """
    path = Path(tempfile.mkdtemp(prefix="postrail-bench-"))
    path.chmod(0o755)
    try:
        if file_system(path) in ("tmpfs", "ramfs"):
            raise BenchmarkError(f"{path} is in memory, where fsync costs nothing; set TMPDIR to a directory on a disk")
        yield path
    finally:
        if os.environ.get("BENCH_KEEP"):
            _log.info("kept %s", path)
        else:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def prepared(system: type[System], *, keep: bool = False) -> Iterator[tuple[System, Sink]]:
    """Start a sink and make the system that delivers to it, not yet started; stop both at the end."""
    with directory() as path:
        sink = Sink(path, "sink", keep=keep)
        try:
            home = path / system.name
            home.mkdir()
            subject = system(Setup(home, sink.port, make_dkim_key(path), free_port()))
            try:
                yield subject, sink
            finally:
                subject.stop()
        finally:
            sink.stop()
