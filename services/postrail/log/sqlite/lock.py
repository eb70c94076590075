"""One process at a time writes a log: an exclusive lock on a file beside it.

Owns the lock file `<log>.lock`, which holds the owner's process id for the message that another process prints. The lock
goes with the process, however it ends; the file stays.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from postrail.log.interface import LogUnavailable


class FileLock:
    """Held from construction to `release`."""

    def __init__(self, path: Path) -> None:
        """Take the lock for the log at `path`.

        Raises:
            LogUnavailable: another process, or another log in this process, has it; or the file cannot be made.
        """
        self.path = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(
                f"{self.path}: cannot be opened: {error.strerror}; check the directory's owner"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise LogUnavailable(
                f"{path}: another Postrail (process {holder}) is using this log; stop it, or set another data_directory"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let others have it. Releasing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def released(self) -> bool:
        """Whether `release` was called."""
        return self._descriptor < 0
