"""Connection slots: how many connections one source IP holds to one site, exact for all processes of the machine.

A slot is an exclusive lock on a file. A process that dies frees its slots. One lock is taken for each connection, none for a
message. With one process only there is nothing to share, and no file is opened.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path


@dataclass(slots=True)
class Slot:
    """A held slot; -1 where nothing is shared."""

    fd: int = -1

    def release(self) -> None:
        """Free it; harmless a second time."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Slots:
    """The slots of this machine.

    Args:
        directory: where the locks lie; made when missing.
        shares: how many processes share the slots.
        first: where this process starts to look, so that equal processes don't all begin at slot 0.
    """

    def __init__(self, directory: Path, shares: int, first: int = 0) -> None:
        self._directory = directory
        self._shared = shares > 1
        self._first = first
        if self._shared:
            directory.mkdir(parents=True, exist_ok=True)

    def acquire(self, key: str, limit: int) -> Slot | None:
        """A free slot of `limit` for the key (source IP and site); None when all are held."""
        if not self._shared:
            return Slot()
        name = blake2b(key.encode(), digest_size=12).hexdigest()
        for number in range(limit):
            path = self._directory / f"{name}.{(number + self._first) % limit}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            return Slot(fd)
        return None
