"""Ends a process whose client is stuck although the brokers can be reached: started again, it works.

Owns that decision, and the thread that sees a blocked event loop. It never ends a process because Kafka is down: that is told
as a problem, and passes by itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, Protocol

from postrail.shell import logs

LOG = logs.logger("log")

Fatal = Callable[[str], None]
"""Told why the process must end; does not return in production."""

EXIT_STUCK = 75
"""EX_TEMPFAIL of sysexits.h: starting again helps."""
TICK_SECONDS = 1.0


class Watched(Protocol):
    """What the watchdog asks of a consumer."""

    group: str

    def stuck(self) -> str | None:
        """What has stopped working, None when all works."""
        ...

    def dead(self) -> str | None:
        """What can never work again, None when nothing."""
        ...


def end_process(reason: str) -> NoReturn:
    """Say why (the line is flushed at once), and end the process without running anything else."""
    LOG.error("log_stuck", problem=reason)
    os._exit(EXIT_STUCK)


class Watchdog:
    """Started and closed by the log."""

    def __init__(
        self,
        stuck_seconds: float,
        watched: Callable[[], Iterable[Watched]],
        reachable: Callable[[str], Awaitable[bool]],
        fatal: Fatal,
        tick: Callable[[], None],
    ) -> None:
        self._stuck_seconds, self._watched, self._reachable = stuck_seconds, watched, reachable
        self._fatal, self._tick = fatal, tick
        self._beats = 0
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._since: dict[Watched, float] = {}

    def start(self) -> None:
        """Watch this event loop and what is `watched`."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        threading.Thread(target=self._watch_loop, name="log-watchdog", daemon=True).start()

    async def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _watch_loop(self) -> None:
        """In the thread. It counts its own looks, so that a process that was stopped as a whole is not ended for that."""
        beats, silent = -1, 0
        while not self._stopped.wait(TICK_SECONDS):
            silent = silent + 1 if beats == self._beats else 0
            beats = self._beats
            if silent * TICK_SECONDS >= self._stuck_seconds:
                self._fatal(f"the event loop has not turned for {silent * TICK_SECONDS:.0f} s; this process ends")
                return

    async def _run(self) -> None:
        while True:
            self._beats += 1
            self._tick()
            for watched in list(self._watched()):
                await self._look(watched)
            self._since = {each: since for each, since in self._since.items() if each in set(self._watched())}
            await asyncio.sleep(TICK_SECONDS)

    async def _look(self, watched: Watched) -> None:
        dead = watched.dead()
        if dead is not None:
            self._fatal(f"group {watched.group}: {dead}; this process ends, to start anew")
            return
        stuck = watched.stuck()
        if stuck is None or not await self._reachable(watched.group):
            self._since.pop(watched, None)
            return
        since = self._since.setdefault(watched, time.monotonic())
        if time.monotonic() - since > self._stuck_seconds:
            self._fatal(
                f"group {watched.group}: {stuck}, although the brokers answer; this process ends, to start anew"
            )
