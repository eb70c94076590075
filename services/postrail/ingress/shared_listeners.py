"""Listening sockets that several workers accept from, and whose turn it is: the worker's with the fewest sessions.

Owns accepting for workers of one machine. Left to the kernel (SO_REUSEPORT), a few long-lived connections spread unevenly, and
the worker with more of them is still busy when the others have nothing to do. The supervisor binds the sockets and makes the
table of counts (`bind`, `SessionCounts.create`); each worker inherits both. Nobody depends on a worker that is stuck: whoever
was passed over once takes what is still waiting after PASS_SECONDS. Neighbour: `service`, which makes the sessions.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from postrail.core.ingress_config import ListenerConfig
from postrail.shell import logs

LOG = logs.logger("ingress")

BACKLOG: Final = 4096
PASS_SECONDS: Final = 0.002
"""How long a connection is left to a worker with fewer sessions."""
NO_FILES_SECONDS: Final = 1.0
"""The pause after an accept that failed, as it does without free file descriptors."""
STARTING_SECONDS: Final = 0.02
"""How long between two looks whether all workers have started."""
ABSENT: Final = 2**31 - 1
"""The count of a worker that takes no connections."""
STARTING: Final = -1
"""The count of a worker that will take connections soon: the others wait for it, so that it gets its part of the first ones."""
_COUNT_BYTES: Final = 4


def bind(listeners: Sequence[ListenerConfig]) -> list[socket.socket]:
    """A listening socket for each, inheritable.

    Raises:
        OSError: a port cannot be bound; the message names the listener.
    """
    bound: list[socket.socket] = []
    for index, listener in enumerate(listeners):
        family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # A system that was killed holds its port until its workers have noticed; the next one needs not wait for that.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family is socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((listener.address, listener.port))
            listening.listen(BACKLOG)
        except OSError as error:
            for each in (listening, *bound):
                each.close()
            raise refused(index, listener, error) from error
        listening.setblocking(False)
        bound.append(listening)
    return bound


def refused(index: int, listener: ListenerConfig, error: OSError) -> OSError:
    """The error of a listener that cannot be bound, with its name."""
    return OSError(
        error.errno,
        f"ingress.listeners[{index}]: cannot listen on {listener.address} port {listener.port}: {error.strerror}",
    )


class SessionCounts:
    """The number of sessions of each worker, in memory that they share. Each writes its own only; all read."""

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, workers * _COUNT_BYTES)).cast("i")

    @classmethod
    def create(cls, workers: int, directory: Path) -> SessionCounts:
        """A new table, in an unnamed file of this directory, in which all workers are starting."""
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(workers * _COUNT_BYTES)
            counts = cls(os.dup(file.fileno()), workers)
        for worker in range(workers):
            counts.set(worker, STARTING)
        return counts

    def wait_no_longer(self) -> None:
        """Those that are still starting take too long: the others begin without them."""
        for worker, sessions in enumerate(self._counts):
            if sessions == STARTING:
                self.set(worker, ABSENT)

    def all_started(self) -> bool:
        """Whether nobody needs to be waited for."""
        return min(self._counts) != STARTING

    def set(self, worker: int, sessions: int) -> None:
        """Tell the others."""
        self._counts[worker] = sessions

    def is_least(self, worker: int) -> bool:
        """Whether no other worker has fewer."""
        return self._counts[worker] <= min(self._counts)


class SharedListeners:
    """What a worker inherits: the sockets in the configuration's order, and the table.

    Args:
        worker: whose turn is asked for.
    """

    def __init__(self, sockets: Sequence[socket.socket], counts: SessionCounts, worker: int) -> None:
        self.sockets = sockets
        self._counts = counts
        self._worker = worker
        self._sessions = 0
        self._coming = 0

    @classmethod
    def inherited(cls, descriptors: Sequence[int], table: int, workers: int, worker: int) -> SharedListeners:
        """From the descriptors that the supervisor passed on."""
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return cls(sockets, SessionCounts(table, workers), worker)

    def sessions_changed(self, sessions: int) -> None:
        """The worker has so many sessions now."""
        self._sessions = sessions
        self._tell()

    def coming(self, difference: int) -> None:
        """Connections were accepted that are no sessions yet, or have become ones."""
        self._coming += difference
        self._tell()

    def is_my_turn(self) -> bool:
        """Whether no other worker has fewer sessions."""
        return self._counts.is_least(self._worker)

    def all_started(self) -> bool:
        """Whether nobody needs to be waited for."""
        return self._counts.all_started()

    def leave(self) -> None:
        """Take no more connections."""
        self._counts.set(self._worker, ABSENT)

    def _tell(self) -> None:
        self._counts.set(self._worker, self._sessions + self._coming)


class Acceptor:
    """Accepts from one shared socket when it is the worker's turn.

    Args:
        factory: makes the protocol of a connection.
    """

    def __init__(
        self,
        shared: SharedListeners,
        listening: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.sockets = (listening,)
        self._shared = shared
        self._listening = listening
        self._factory = factory
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        loop.add_reader(listening, self._ready)

    def close(self) -> None:
        """Accept no more; what waits is left to the others."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _ready(self) -> None:
        if not self._shared.all_started():
            self._pause(STARTING_SECONDS, self._again)
        elif self._shared.is_my_turn():
            self._accept()
        else:
            self._pause(PASS_SECONDS, self._passed_over)

    def _passed_over(self) -> None:
        self._again()
        self._accept()

    def _again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listening, self._ready)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(seconds, then)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has gone
        except OSError as error:
            LOG.error("cannot_accept", reason=str(error), action="raise LimitNOFILE, or lower max_connections")
            self._pause(NO_FILES_SECONDS, self._again)
            return
        connection.setblocking(False)
        self._shared.coming(1)
        task = self._loop.create_task(self._connect(connection), name="accept")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()
        finally:
            self._shared.coming(-1)
