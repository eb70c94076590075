"""Workers of one machine share their listening sockets, and connections spread evenly over them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postrail.core.ingress_config import ListenerConfig, ListenerKind
from postrail.ingress.shared_listeners import STARTING, Acceptor, SessionCounts, SharedListeners, bind

ANYWHERE = ListenerConfig(
    kind=ListenerKind.TRUSTED, address="127.0.0.1", port=0, networks=("127.0.0.0/8",), submitter="local"
)


class Worker:
    """A worker as far as this matters: it greets with its number."""

    def __init__(self, number: int, listening: socket.socket, counts: SessionCounts, workers: int) -> None:
        loop = asyncio.get_running_loop()
        worker = self
        self.shared = SharedListeners([listening], SessionCounts(counts.descriptor, workers), number)
        self.sessions: set[asyncio.Protocol] = set()
        self.shared.sessions_changed(0)

        class Session(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                worker.sessions.add(self)
                worker.shared.sessions_changed(len(worker.sessions))
                transport.write(b"%d" % number)  # type: ignore[attr-defined]

            def connection_lost(self, exc: Exception | None) -> None:
                worker.sessions.discard(self)
                worker.shared.sessions_changed(len(worker.sessions))

        self.acceptor = Acceptor(self.shared, listening.dup(), Session, loop)


class Machine:
    """Some workers, and clients."""

    def __init__(self, directory: Path, workers: int) -> None:
        (self.listening,) = bind([ANYWHERE])
        self.counts = SessionCounts.create(workers, directory)
        self.counts.wait_no_longer()
        self.workers = workers
        self.running: list[Worker] = []
        self.clients: list[asyncio.StreamWriter] = []

    def start(self, number: int) -> Worker:
        self.running.append(Worker(number, self.listening, self.counts, self.workers))
        return self.running[-1]

    async def connect(self) -> int:
        reader, writer = await asyncio.open_connection(*self.listening.getsockname())
        self.clients.append(writer)
        return int(await reader.readexactly(1))


@contextlib.asynccontextmanager
async def machine(directory: Path, workers: int) -> AsyncIterator[Machine]:
    made = Machine(directory, workers)
    try:
        yield made
    finally:
        for writer in made.clients:
            writer.close()
        for worker in made.running:
            worker.acceptor.close()
        made.listening.close()
        await asyncio.sleep(0.05)


async def test_connections_at_once_spread_evenly(tmp_path: Path) -> None:
    async with machine(tmp_path, 4) as four:
        for number in range(4):
            four.start(number)
        greeted = Counter(await asyncio.gather(*(four.connect() for _ in range(40))))
        assert greeted == dict.fromkeys(range(4), 10)


async def test_who_has_fewer_gets_the_next(tmp_path: Path) -> None:
    async with machine(tmp_path, 2) as two:
        two.start(0)
        for _ in range(6):
            assert await two.connect() == 0
        two.start(1)
        assert [await two.connect() for _ in range(6)] == [1] * 6


async def test_the_first_connections_wait_until_all_have_started(tmp_path: Path) -> None:
    async with machine(tmp_path, 2) as two:
        two.counts.set(1, STARTING)
        two.start(0)
        first = [asyncio.ensure_future(two.connect()) for _ in range(6)]
        await asyncio.sleep(0.1)
        assert not any(connection.done() for connection in first)
        two.start(1)
        assert Counter(await asyncio.gather(*first)) == {0: 3, 1: 3}


async def test_a_worker_that_never_starts_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with machine(tmp_path, 2) as two:
        two.counts.set(1, STARTING)
        two.start(0)
        two.counts.wait_no_longer()
        assert [await two.connect() for _ in range(3)] == [0] * 3


async def test_nobody_waits_for_a_worker_that_is_stuck(tmp_path: Path) -> None:
    async with machine(tmp_path, 2) as two:
        two.start(0)
        two.counts.set(1, 0)  # it has no sessions, and takes none
        assert [await two.connect() for _ in range(5)] == [0] * 5


async def test_a_worker_that_leaves_gets_no_more(tmp_path: Path) -> None:
    async with machine(tmp_path, 2) as two:
        leaving = two.start(0)
        two.start(1)
        leaving.shared.leave()
        leaving.acceptor.close()
        two.running.remove(leaving)
        assert [await two.connect() for _ in range(5)] == [1] * 5


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"ingress.listeners\[1\]: cannot listen on 127.0.0.1 port {port}: "):
            bind([ANYWHERE, ANYWHERE.model_copy(update={"port": port})])
