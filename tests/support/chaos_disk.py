"""Disks that are full, and disks that fail to sync, under a whole running system.

Owns the small filesystem and the preloaded library `chaos_fsync.c`. A machine where neither can be had skips.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.tools import require_tool

_SOURCE = Path(__file__).with_name("chaos_fsync.c")


@contextmanager
def small_disk(place: Path, size_bytes: int) -> Iterator[None]:
    """A filesystem of so many bytes at `place`, which is made."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"a small filesystem needs the right to mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@dataclass(frozen=True, slots=True)
class FailingSync:
    """Makes fsync and fdatasync fail for files whose path contains `path`, once `fail` is called and until `heal`."""

    folder: Path
    path: str

    @property
    def environment(self) -> dict[str, str]:
        """For the process that is to fail; compiles the library."""
        compiler = require_tool("cc", "it compiles the library that makes fsync fail")
        library = self.folder / "chaos_fsync.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)], check=True)
        return {
            "LD_PRELOAD": str(library),
            "CHAOS_FSYNC_TRIGGER": str(self._trigger),
            "CHAOS_FSYNC_PATH": self.path,
            "CHAOS_FSYNC_LOG": str(self._log),
        }

    @property
    def _trigger(self) -> Path:
        return self.folder / "sync-fails"

    @property
    def _log(self) -> Path:
        return self.folder / "sync-failures"

    def fail(self) -> None:
        self._trigger.touch()

    def heal(self) -> None:
        self._trigger.unlink()

    @property
    def failures(self) -> list[str]:
        """The paths of the calls that failed."""
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
