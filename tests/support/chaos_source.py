"""A source of mail at a steady rate, cheap enough to run beside what is tested: many SMTP sessions in a process of its own.

Owns the making of its letters (one recipient, a few bodies that it uses again and again, an id that nothing else has), their
schedule, and the telling of the ledger. A letter is offered once and never again, whatever became of it. What is late is made up
for, so the rate holds on average. Neighbours: `chaos_injector` submits with pauses within the content and from the test's own
process; its counts of refusals and lost connections are kept by the source too.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from postrail.demo.ledger import FIELD, body_digest
from tests.support.chaos_injector import SENDER, Injector
from tests.support.chaos_session import Session

BODIES = 32
AHEAD = 5000
"""So many letters the ledger knows before they are offered: none arrives that it does not know."""
LETTERS_A_SESSION = 50
"""Then the connection is made anew, and may reach another process."""
TELL_SECONDS = 0.02
RECONNECT_SECONDS = 0.02
REFUSED_PAUSE_SECONDS = 0.1
_REPOSITORY = Path(__file__).parents[2]
_NAMES = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Order:
    """What the source's process is to do.

    Attributes:
        per_second: how many letters are offered, by the schedule; 0: as many as are taken.
        count: it ends by itself once so many are accepted; 0: when its standard input ends.
    """

    name: str
    port: int
    domains: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    per_second: float
    sessions: int
    count: int


class Prepared(NamedTuple):
    """A letter; `content` has CRLF line ends and doubled dots, and ends before the final one."""

    ledger_id: str
    recipient: str
    content: bytes


class Letters:
    """All letters of an order, the same in both processes."""

    def __init__(self, order: Order) -> None:
        self._name, self._domains = order.name, order.domains
        self.bodies = [_body(order.sizes_bytes[index % len(order.sizes_bytes)], index) for index in range(BODIES)]
        self._stuffed = [body.replace(b"\r\n.", b"\r\n..") for body in self.bodies]

    def ledger_id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def recipient(self, number: int) -> str:
        return f"{self._name}-{number}@{self._domains[number % len(self._domains)]}"

    def letter(self, number: int) -> Prepared:
        """Letter `number`, counted from 0."""
        ledger_id, recipient = self.ledger_id(number), self.recipient(number)
        header = (
            f"From: <{SENDER}>\r\nTo: <{recipient}>\r\nSubject: {ledger_id}\r\n{FIELD.decode()}: {ledger_id}\r\n\r\n"
        )
        return Prepared(ledger_id, recipient, header.encode() + self._stuffed[number % BODIES])


def _body(size_bytes: int, seed: int) -> bytes:
    """Lines of text, some of them with leading dots, the first without."""
    text = random.Random(seed).randbytes(size_bytes // 2 + 1).hex()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    lines[1::7] = [f".{line}" for line in lines[1::7]]
    return "\r\n".join([*lines, ".", "..", "end"]).encode() + b"\r\n"


@dataclass(slots=True)
class Source:
    """What a source has done so far.

    Attributes:
        accepted: how many letters got a 250.
        offered: how many were begun: those, the refused, and those whose connection was lost.
        accepted_at: when, on the clock of `time.monotonic`, in about this order.
    """

    injector: Injector
    order: Order
    accepted: int = 0
    offered: int = 0
    accepted_at: list[float] = field(default_factory=list)
    ended: bool = False
    _known: int = 0
    _letters: Letters | None = None
    _digests: list[bytes] = field(default_factory=list)

    def know_ahead(self) -> None:
        """Tell the ledger of the letters that may be offered next."""
        if self._letters is None:
            self._letters = Letters(self.order)
            self._digests = [body_digest(b"\r\n\r\n" + body) for body in self._letters.bodies]
        while self._known < self.offered + AHEAD:
            self.injector.ledger.offered(self._letters.ledger_id(self._known), self._digests[self._known % BODIES])
            self._known += 1

    def told(self, line: str) -> None:
        """The process tells what became of a letter."""
        number_text, at, what = line.split(" ", 2)
        number = int(number_text)
        assert self._letters is not None
        self.offered += 1
        if what.startswith("250"):
            self.accepted += 1
            self.accepted_at.append(float(at))
            self.injector.ledger.submitted(
                self._letters.ledger_id(number), self._letters.recipient(number), self._digests[number % BODIES]
            )
        elif what.startswith("lost "):
            self.injector.lost_in[what.removeprefix("lost ")] += 1
        else:
            self.injector.refused[what] += 1
        if self.offered % (AHEAD // 2) == 0:
            self.know_ahead()

    def rate(self) -> float:
        """Accepted letters a second, from the first to the last."""
        times = self.accepted_at
        return (self.accepted - 1) / (times[-1] - times[0]) if self.accepted > 1 else 0.0

    def slowest_rate(self, seconds: float) -> float:
        """The fewest a second that were accepted within so many seconds, wherever those begin; of a shorter run, its rate."""
        times = sorted(self.accepted_at)
        if not times or times[-1] - times[0] < seconds:
            return self.rate()
        starts = itertools.takewhile(lambda start: start + seconds <= times[-1], itertools.count(times[0], 1.0))
        counts = [bisect.bisect(times, start + seconds) - bisect.bisect(times, start) for start in starts]
        return min(counts) / seconds


@asynccontextmanager
async def source(
    injector: Injector,
    *,
    per_second: float = 0.0,
    sessions: int = 24,
    count: int = 0,
    sizes_bytes: Sequence[int] = (300, 1000, 3000),
    domains: Sequence[str] = (),
) -> AsyncIterator[Source]:
    """Submit for the time of an `async with`; all that was offered is in the ledger when that ends.

    Args:
        per_second, count: as in `Order`.
        domains: of the recipients; those of the injector if not given.
    """
    order = Order(
        f"source{next(_NAMES)}",
        injector.port,
        tuple(domains or injector.domains),
        tuple(sizes_bytes),
        per_second,
        sessions,
        count,
    )
    running = Source(injector, order)
    running.know_ahead()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.chaos_source", json.dumps(asdict(order))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_REPOSITORY,
    )
    assert process.stdin is not None
    telling = asyncio.create_task(_follow(process, running))
    try:
        yield running
        assert count or not running.ended, f"the source has ended with {process.returncode}"
    finally:
        process.stdin.close()
        await telling
        status = await process.wait()
    assert status == 0, f"the source ended with {status}; it says why above"


async def _follow(process: asyncio.subprocess.Process, running: Source) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        running.told(line.decode().rstrip("\n"))
    running.ended = True


class _Submission:
    """The work of the source's process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._letters = Letters(order)
        self._numbers = itertools.count()
        self._accepted = 0
        self._stopping = False
        self._began = time.monotonic()
        self._lines: list[str] = []

    async def run(self) -> None:
        """Submit until told to stop, or until enough are accepted."""
        telling = asyncio.create_task(self._tell())
        watching = asyncio.create_task(self._watch_input())
        async with asyncio.TaskGroup() as group:
            for _ in range(self._order.sessions):
                group.create_task(self._work())
        for task in (telling, watching):
            task.cancel()
        self._flush()

    async def _watch_input(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        self._stopping = True

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            sys.stdout.write("".join(self._lines))
            sys.stdout.flush()
            self._lines.clear()

    @property
    def _is_done(self) -> bool:
        return self._stopping or 0 < self._order.count <= self._accepted

    async def _next(self) -> int | None:
        """The next letter, at its time."""
        if self._is_done:
            return None
        number = next(self._numbers)
        if self._order.per_second:
            await asyncio.sleep(self._began + number / self._order.per_second - time.monotonic())
        return number

    async def _work(self) -> None:
        number: int | None = None
        while True:
            if number is None:
                number = await self._next()
            if number is None or self._stopping:
                return
            try:
                session = await _Session.open(self._order.port)
            except (OSError, EOFError):
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            try:
                number = await self._use(session, number)
            finally:
                session.close()

    async def _use(self, session: _Session, number: int) -> int | None:
        """Offer this letter and some more over one connection; returns one that was not offered."""
        for _ in range(LETTERS_A_SESSION):
            try:
                reply = await session.offer(self._letters.letter(number))
            except (OSError, EOFError):
                self._record(number, f"lost {session.phase}")
                return None
            self._record(number, reply[:9])
            if reply.startswith("250"):
                self._accepted += 1
            else:
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)
                if reply.startswith("421"):
                    return None
            following = await self._next()
            if following is None:
                return None
            number = following
        return number

    def _record(self, number: int, what: str) -> None:
        self._lines.append(f"{number} {time.monotonic():.4f} {what}\n")


class _Session(Session):
    NAME = "source.shop.example"
    REPLY_TIMEOUT_SECONDS = 60.0

    async def offer(self, letter: Prepared) -> str:
        """Submit; returns the reply that decided."""
        return await self.submit(SENDER, [letter.recipient], letter.content)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    asyncio.run(_Submission(Order(**fields)).run())
