"""Keeps the write-ahead log short without stopping the writers.

Owns when the WAL is copied into the main file, and the thread and connection for it. The long copy runs beside the commits;
because they go on meanwhile, it alone would never empty the WAL, so a second, short copy of what has come since runs between
two commits (`finish_due`), after which SQLite starts the WAL from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw

from postrail.log.sqlite.runner import Runner
from postrail.log.sqlite.schema import BUSY_TIMEOUT_MILLISECONDS, PAGE_BYTES
from postrail.log.sqlite.store import Store

START_PAGES = (32 << 20) // PAGE_BYTES
"""The long copy starts when so many pages wait."""
FINISH_PAGES = (4 << 20) // PAGE_BYTES
"""The short copy is done only when no more than these are left, except after MAX_ROUNDS long ones."""
MAX_ROUNDS = 4
LOOK_PAGES = (1 << 20) // PAGE_BYTES
"""How many wait is asked once in so many: it takes locks on the file."""


class Checkpointer:
    """Called after each group."""

    def __init__(self, path: Path, vfs: str | None, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
        self._connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        self._connection.wal_autocheckpoint(0)
        self._connection.pragma("synchronous", "full")
        self._runner = Runner(loop, "log-checkpoint")
        self._running = False
        self._rounds = 0
        self._due = False
        self._looked_at = -LOOK_PAGES
        self.waiting_bytes = 0

    def look(self, may_start: bool, failed: Callable[[BaseException], None]) -> None:
        """Start a long copy when enough waits. Call it between transactions."""
        if self._running or self._due or not may_start:
            return
        written = self._store.pages_written()
        if not self._rounds and written - self._looked_at < LOOK_PAGES:
            return
        self._looked_at = written
        waiting = self._waiting_pages()
        if waiting < START_PAGES and not self._rounds:
            return
        if self._rounds and (waiting <= FINISH_PAGES or self._rounds >= MAX_ROUNDS):
            self._due = True
            return

        def done(error: BaseException | None) -> None:
            self._running = False
            self._rounds += 1
            if error is not None:
                self._rounds = 0
                failed(error)

        self._running = True
        self._runner.submit(self._copy, done)

    def finish_due(self) -> bool:
        """Whether the short copy should run now, before the next transaction."""
        return self._due

    def finished(self) -> None:
        """The short copy is done."""
        self._due = False
        self._rounds = 0

    async def close(self) -> None:
        """Wait for a copy that runs, and release the connection."""
        await self._runner.run(lambda: None)
        self._runner.stop()
        self._connection.close()

    def _waiting_pages(self) -> int:
        frames, copied = self._store.wal_frames()
        self.waiting_bytes = max(0, frames - copied) * PAGE_BYTES
        return max(0, frames - copied)

    def _copy(self) -> None:
        self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
