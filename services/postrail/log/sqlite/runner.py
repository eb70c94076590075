"""A thread that runs one blocking call after another, and tells the event loop when each is done.

Owns the thread. Two of them serve the log: one for commits, one for long checkpoints. A call that is running cannot be
cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

Call = Callable[[], object]
Done = Callable[[BaseException | None], None]


class Runner:
    """Started at construction; `stop` after the last call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Call, Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Call, done: Done) -> None:
        """Run `call` on the thread, then `done` on the event loop, with the exception or None."""
        self._calls.put((call, done))

    async def run(self, call: Call) -> None:
        """Run `call` on the thread and wait for it; raises what it raises."""
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.submit(call, done)
        await future

    def stop(self) -> None:
        """End the thread after what was submitted; waits for it."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._calls.get()) is not None:
            call, done = job
            failure: BaseException | None = None
            try:
                call()
            except BaseException as error:  # handed to the loop, which decides
                failure = error
            try:
                self._loop.call_soon_threadsafe(done, failure)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
