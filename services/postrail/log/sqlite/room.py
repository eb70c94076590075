"""Whether mail from outside may still come in: the disk's free room and the log's own bound.

Owns the two limits of the configuration. Only appends from outside are refused by it; what the pipeline writes to finish
its backlog may use the rest of the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from postrail.core.log_config import LogConfig
from postrail.log.interface import LogFull

REFRESH_SECONDS = 1.0


class Room:
    """Looks at the disk at most once a second."""

    def __init__(self, path: Path, config: LogConfig) -> None:
        self._path = path
        self._config = config
        self._looked_at = -REFRESH_SECONDS
        self._problem: str | None = None
        self.used_bytes = 0

    def check(self, now: float) -> None:
        """Refuse when there is no room; `now` is monotonic, in seconds.

        Raises:
            LogFull: naming the limit that was reached.
        """
        if now - self._looked_at >= REFRESH_SECONDS:
            self._looked_at = now
            self._problem = self._look()
        if self._problem is not None:
            raise LogFull(self._problem)

    def _look(self) -> str | None:
        status = os.statvfs(self._path.parent)
        free_bytes = status.f_bavail * status.f_frsize
        if free_bytes < self._config.min_free_bytes:
            return (
                f"{self._path.parent}: {free_bytes >> 20} MiB free on the disk, less than log.min_free_bytes "
                f"({self._config.min_free_bytes >> 20} MiB); free some room, new mail is refused until then"
            )
        if self._config.max_bytes is not None and self.used_bytes > self._config.max_bytes:
            return (
                f"{self._path}: holds {self.used_bytes >> 20} MiB, more than log.max_bytes "
                f"({self._config.max_bytes >> 20} MiB); new mail is refused until mail was delivered"
            )
        return None
