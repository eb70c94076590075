"""The world of a chaos test: Postrail in a process that is killed and started again, its DNS, its receivers, the books.

Owns the processes and the waiting. Peers, injector and books live in the test's process, outside of what crashes. Neighbours:
`chaos_launcher` starts the system, `chaos_books` judges, the demonstration brings the configuration, DNS server and receivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from argon2 import PasswordHasher

from postrail.cli.queue import Waiting, as_waiting
from postrail.core.records import EventType
from postrail.core.topics import EVENTS, holds_mail
from postrail.demo.dns_server import DnsServer
from postrail.demo.ledger import Balance
from postrail.demo.receivers import Behaviour, Receiver
from postrail.demo.system import SELECTORS, System
from postrail.demo.world import SENDER_DOMAIN
from postrail.log.sqlite import inspect
from postrail.wire import codec
from tests.support.chaos_books import Books
from tests.support.chaos_injector import Injector
from tests.support.processes import daemon_folder, free_port, tail

DOMAINS = ("alpha.example", "beta.example", "gamma.example")
START_SECONDS = 30.0
END_SECONDS = 40.0
EMPTY_LOOKS = 10
RETRY_SECONDS = 0.5
_CHEAP_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("not used")
"""Without any hash the system makes one at every start."""

_LAUNCHER = (sys.executable, "-m", "tests.support.chaos_launcher")
_REPOSITORY = Path(__file__).parents[2]


async def any_moment() -> None:
    """Return a random while later."""
    await asyncio.sleep(random.uniform(0.01, 0.25))


@dataclass(slots=True)
class ChaosWorld:
    """A system and its surroundings. Made by `chaos_world`.

    Attributes:
        receivers: by domain; listening from the beginning.
        command: what runs the launcher; a test may put a tracer before it.
        workers: how many the next start has; with more than one a supervisor starts them.
        status: how the last life ended.
    """

    system: System
    receivers: Mapping[str, Receiver]
    books: Books
    injector: Injector
    command: Sequence[str] = _LAUNCHER
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    pid: int = 0
    status: int | None = None
    _launcher: asyncio.subprocess.Process | None = None
    _events_read: dict[Path, int] = field(default_factory=dict)
    _delivered: set[str] = field(default_factory=set)

    @property
    def data(self) -> Path:
        return self.system.folder / "data"

    @property
    def output(self) -> Path:
        """What all lives printed."""
        return self.system.folder / "output.log"

    async def start(self) -> None:
        """Begin a life; returns when mail is taken."""
        launcher = self._launcher or await self._launch()
        assert launcher.stdin is not None
        arguments = ["up", "--config", str(self.system.config_file), "--workers", str(self.workers)]
        launcher.stdin.write(json.dumps(arguments).encode() + b"\n")
        self.pid, self.status = await self._told(), None
        deadline = time.monotonic() + START_SECONDS
        while not await self._greets():
            assert _runs(self.pid), f"the system ended at its start\n{self.said()}"
            assert time.monotonic() < deadline, f"the system takes no mail\n{self.said()}"
            await asyncio.sleep(0.005)

    async def _launch(self) -> asyncio.subprocess.Process:
        with self.output.open("ab") as output:
            self._launcher = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                cwd=_REPOSITORY,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        return self._launcher

    async def _told(self) -> int:
        assert self._launcher is not None
        assert self._launcher.stdout is not None
        line = await self._launcher.stdout.readline()
        assert line, f"the launcher ended\n{self.said()}"
        return int(line)

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.injector.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"220")
        except OSError:
            return False
        finally:
            writer.close()

    async def kill(self) -> None:
        """End the life with kill -9."""
        workers = _children(self.pid)
        for pid in (self.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.until(lambda: not any(_runs(pid) for pid in workers))
        await self.ended(crashed=True)

    async def stop(self) -> None:
        """End the life as a service manager does; the status must be 0."""
        os.kill(self.pid, signal.SIGTERM)
        await self.ended(crashed=False)
        assert self.status == 0, f"SIGTERM ended it with {self.status}\n{self.said()}"

    async def ended(self, *, crashed: bool) -> None:
        """Wait for the end of the life, and for the receivers to have taken what was on the wire."""
        async with asyncio.timeout(END_SECONDS):
            self.status = await self._told()
        await self.until(lambda: not any(receiver.sessions for receiver in self.receivers.values()))
        self.books.ended(await asyncio.to_thread(self.recorded), crashed=crashed)
        self.pid = 0

    def recorded(self) -> set[str]:
        """Recipients that the log holds as delivered; works in a life and between two."""
        for path in self.log_files():
            for record in inspect.records(path, EVENTS, start=self._events_read.get(path, 0)):
                self._events_read[path] = record.offset + 1
                event = codec.decode_event(record.value)
                if event.type is EventType.DELIVERED:
                    self._delivered.update(event.recipients)
        return self._delivered

    async def until_recorded(self, recipients: Sequence[str], seconds: float = 30.0) -> None:
        """Wait until the log holds all of them as delivered."""
        deadline = time.monotonic() + seconds
        while missing := set(recipients) - await asyncio.to_thread(self.recorded):
            assert time.monotonic() < deadline, f"not recorded as delivered: {missing}\n{self.said()}"

    def log_files(self) -> list[Path]:
        return inspect.log_files(self.data)

    def waiting(self) -> list[Waiting]:
        """What the queue shows; works in a life and between two."""
        return [as_waiting(record) for path in self.log_files() for record in inspect.unfinished(path, holds_mail)]

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until something in this process is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not come to be\n{self.said()}"
            await asyncio.sleep(0.002)

    async def drained(self, seconds: float = 60.0) -> None:
        """Wait until nothing waits any more.

        The queue is read topic by topic, so that mail in motion between two of them can be overlooked: while the ledger misses
        something, an empty queue is believed when it was empty for a while.
        """
        deadline = time.monotonic() + seconds
        looks = 0
        while looks < EMPTY_LOOKS:
            queued = await asyncio.to_thread(self.waiting)
            looks = 0 if queued else looks + 1
            if looks and not self.books.ledger.open_count:
                return
            assert time.monotonic() < deadline, f"still {len(queued)} in the queue, first {queued[:3]}\n{self.said()}"
            await asyncio.sleep(random.uniform(0.1, 0.3))

    async def settle(self, seconds: float = 60.0) -> Balance:
        """Wait until nothing waits any more, stop the system, and balance the books."""
        await self.drained(seconds)
        await self.stop()
        return self.books.ledger.balance()

    async def crash_under_load(
        self, crashes: int, *, sessions: int = 4, moment: Callable[[], Awaitable[None]] = any_moment
    ) -> None:
        """Submit without end, and end so many lives, each when `moment` returns; the last start is left alive."""
        async with self.load(sessions):
            for _ in range(crashes):
                await moment()
                await self.kill()
                await self.start()

    @asynccontextmanager
    async def load(self, sessions: int = 4) -> AsyncIterator[None]:
        """Submit without end for the time of an `async with`."""
        load = asyncio.create_task(self.injector.run(sessions))
        try:
            yield
        finally:
            self.injector.stop()
            await load

    async def close(self) -> None:
        """End everything."""
        if self._launcher is not None:
            for pid in (self.pid, *_children(self.pid)) if self.pid else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._launcher.pid, signal.SIGKILL)
            await self._launcher.communicate()
        for receiver in self.receivers.values():
            await receiver.stop()

    def said(self) -> str:
        """The end of what the system printed and logged."""
        return f"{tail(self.output, 30)}\n{tail(self.system.log_file, 30)}"


class Judged(Protocol):
    """A world whose books are balanced."""

    @property
    def books(self) -> Books: ...

    @property
    def injector(self) -> Injector: ...

    def said(self) -> str: ...


def assert_nothing_lost(world: Judged, balance: Balance) -> None:
    """L, U and B of the ledger, and D as far as crashes explain repeats."""
    assert balance.accepted, "the run proves nothing: no mail was accepted"
    assert not balance.lost, f"{len(balance.lost)} lost of {balance.accepted}: {balance.lost[:10]}\n{world.said()}"
    assert not balance.bounced
    assert not balance.altered
    assert not world.books.malformed
    assert not world.books.unexplained(), world.books.unexplained()[:10]
    unexpected = {reply for reply in world.injector.refused if not reply.startswith(("421", "451", "452"))}
    assert not unexpected, world.injector.refused


def assert_even(world: Judged, balance: Balance) -> None:
    """As above, and nobody got anything twice: also not what got no 250."""
    assert_nothing_lost(world, balance)
    assert balance.duplicates == 0
    assert balance.unaccepted_repeats == 0
    assert world.books.repeats() == 0


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return bool((Path("/proc") / str(pid) / "cmdline").read_bytes())  # a zombie has none
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return [*found, *(below for child in found for below in _children(child))]


@asynccontextmanager
async def chaos_world(
    *breakages: str,
    behaviour: Callable[[], Behaviour] = Behaviour,
    overrides: Mapping[str, Any] | None = None,
) -> AsyncIterator[ChaosWorld]:
    """A world that is ready for `start`.

    Args:
        breakages: names of `chaos_broken`, for the system only.
        behaviour: of each receiver.
        overrides: sections of the configuration.
    """
    with daemon_folder("chaos") as folder:
        dns = DnsServer()
        await dns.start()
        books = Books()
        receivers = await receivers_of(dns, books, behaviour)
        system = System(folder, dns, next(iter(receivers.values())).port, submission_port=free_port())
        system.overrides = configuration(folder, system.submission_port, overrides or {})
        system.write()
        injector = Injector(system.submission_port, books.ledger, DOMAINS)
        world = ChaosWorld(system, receivers, books, injector, (*_LAUNCHER, *breakages))
        try:
            yield world
        finally:
            await world.close()
            await dns.stop()


async def receivers_of(dns: DnsServer, books: Books, behaviour: Callable[[], Behaviour]) -> dict[str, Receiver]:
    port = free_port()
    receivers = {}
    for number, domain in enumerate(DOMAINS, 1):
        address = f"127.0.31.{number}"
        dns.add(domain, "MX", f"10 mx.{domain}.")
        dns.add(f"mx.{domain}", "A", address)
        receivers[domain] = Receiver(f"mx.{domain}", address, port, behaviour(), books.received)
        await receivers[domain].start()
    return receivers


def configuration(folder: Path, port: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "log": {"min_free_bytes": "1MiB"},
        "blobs": {"inline_limit_bytes": "32KiB"},
        "ingress": {
            "listeners": [
                {
                    "kind": "trusted",
                    "address": "127.0.0.1",
                    "port": port,
                    "networks": ["127.0.0.0/8"],
                    "submitter": "injector",
                }
            ],
        },
        "submitters": [{"name": "injector", "domains": [SENDER_DOMAIN], "password_hash": _CHEAP_HASH}],
        "signing": {
            "domains": {  # the other key takes long to load
                SENDER_DOMAIN: {
                    "keys": [
                        {
                            "selector": SELECTORS["ed25519"],
                            "key_file": str(folder / f"{SELECTORS['ed25519']}.pem"),
                        }
                    ]
                }
            }
        },
        "delivery": {
            "default_limits": {"messages_per_second": 10_000, "new_connections_per_minute": 60_000},
            "retry": {
                "delays_seconds": [RETRY_SECONDS],
                "tiers_seconds": [RETRY_SECONDS, 2 * RETRY_SECONDS],
                "site_backoff_seconds": [RETRY_SECONDS],
            },
            "drain_seconds": 10.0,
        },
    }
    for section, fields in overrides.items():
        values[section] = {**values.get(section, {}), **fields}
    return values
