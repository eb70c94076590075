"""Faults 25 to 27: guessers, slow clients, and messages that are too large, too long or too many parts; the whole system.

What others notice is asserted as fact (they are served, the slow ones get 421, memory is bounded); how fast they are served
is measured by `bench/slow_clients.py`, because a time says little on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import sha256

import pytest
import pytest_asyncio

from postrail.core.records import EventType
from tests.support.fault_client import Client
from tests.support.fault_configuration import SENDER, SUBMISSION
from tests.support.fault_world import FaultWorld, Place, fault_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE_TIMEOUT_SECONDS = 6.0
COMMAND_TIMEOUT_SECONDS = 6.0
MAX_MESSAGE_BYTES = 25 << 20
SPOOL_BYTES = 8 << 20
KEPT_BYTES = 56 << 20
"""What may come on top of the base: the spool, what the log keeps in memory (`log.hot_bytes`), and slack."""
CONNECTION_BYTES = 256 << 10
"""What one connection may cost at most: the input that it may hold."""
USUAL_OPEN_FILES = 1024
LONGEST_STALL_SECONDS = 1.0
"""Ten times what is promised: this machine does other things, too."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[FaultWorld]:
    limits = {
        "message_timeout_seconds": MESSAGE_TIMEOUT_SECONDS,
        "command_timeout_seconds": COMMAND_TIMEOUT_SECONDS,
        "max_connections": 4000,
        "max_connections_per_client": 2500,
        "new_connections_per_client_per_minute": 10_000,
        "auth_failure_delay_seconds": 0.5,
        "spool_memory_bytes": SPOOL_BYTES,
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_OPEN_FILES, hard))
    timeouts = {"final_dot_seconds": 60, "idle_seconds": 1}
    async with fault_world(
        ingress={"limits": limits},
        log={"min_free_bytes": "1MiB", "hot_bytes": "8MiB"},
        delivery={"timeouts": timeouts},
    ) as running:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(world: FaultWorld) -> Place:
    return await world.place()


# 25: guessing passwords


async def test_guessing_is_slowed_and_ended_and_a_valid_user_notices_nothing(world: FaultWorld, place: Place) -> None:
    async def guess(number: int) -> list[str]:
        client = await world.connect(SUBMISSION, source="127.0.0.66", tls=True)
        replies: list[str] = []
        while not replies or replies[-1].startswith("535"):
            replies.append((await client.log_in(f"guess {number} {len(replies)}"))[:9])
        assert await client.rest() == "", "the connection ends"
        await client.close()
        return replies

    async def log_in_and_send() -> None:
        client = await world.connect(SUBMISSION, tls=True)
        assert (await client.log_in()).startswith("235")
        ledger_id, content = world.content()
        for line in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{place('user')}>", "DATA"):
            assert (await client.say(line))[0] in "23"
        await client.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert (await client.reply()).startswith("250 ")
        world.ledger.submitted(ledger_id, place("user"), sha256(content.partition(b"\r\n\r\n")[2]).digest())
        await client.close()

    started = time.monotonic()
    guesses = asyncio.gather(*(guess(number) for number in range(3)))
    for _ in range(5):
        await log_in_and_send()
    answered = await guesses
    took_seconds = time.monotonic() - started
    failures = sum(len(replies) for replies in answered)
    assert all(replies[-1] == "421 4.7.0" for replies in answered)
    assert all(reply == "535 5.7.8" for replies in answered for reply in replies[:-1])
    assert sum(reply == "535 5.7.8" for replies in answered for reply in replies) <= 3 + 1, "421 after three failures"
    assert failures <= 3 + 3 + 1, "guesses at the same time are bounded, too"
    assert took_seconds >= 2.0, "each failure waits twice as long as the one before"
    blocked = await world.connect(SUBMISSION, source="127.0.0.66", tls=True)
    assert (await blocked.log_in()).startswith("421 4.7.0 "), "even the right password must wait now"
    await blocked.close()
    await log_in_and_send()


# 26: slow clients


async def drip(world: FaultWorld, recipient: str, ended: list[str]) -> None:
    """Say DATA, then a byte a second; what the server says in the end."""
    client = await world.connect(source="127.0.0.50")
    transaction = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
    await client.send(transaction.encode())
    for _ in range(3):
        assert (await client.reply())[0] in "23"
    rest = asyncio.create_task(client.rest())
    with suppress(ConnectionError):
        while not rest.done():
            client.writer.write(b"x")
            await asyncio.wait({rest}, timeout=1)
    ended.append(await rest)
    await client.close()


async def creep(world: FaultWorld, ended: list[str]) -> None:
    """A command, a byte a second."""
    client = await world.connect(source="127.0.0.51", ehlo="")
    rest = asyncio.create_task(client.rest())
    with suppress(ConnectionError):
        while not rest.done():
            client.writer.write(b"E")
            await asyncio.wait({rest}, timeout=1)
    ended.append(await rest)
    await client.close()


async def test_more_connections_are_allowed_than_a_shells_usual_limit(world: FaultWorld) -> None:
    assert world.system.process is not None
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > USUAL_OPEN_FILES
    soft, hard = resource.prlimit(world.system.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


async def test_two_thousand_slow_clients_get_421_and_others_are_served(world: FaultWorld, place: Place) -> None:
    before_bytes = world.memory_bytes
    ended: list[str] = []
    slow = 2000
    tasks = []
    for number in range(slow):
        slow_client = drip(world, place("slow"), ended) if number % 2 else creep(world, ended)
        tasks.append(asyncio.create_task(slow_client))
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    served = [await world.submit(place("quick")) for _ in range(20)]
    most_bytes = 0
    while not all(task.done() for task in tasks):
        most_bytes = max(most_bytes, world.memory_bytes)
        served.append(await world.submit(place("quick")))
        await asyncio.sleep(0.1)
    await asyncio.gather(*tasks)
    assert len(ended) == slow
    assert all(reply.startswith("421 4.4.2 ") for reply in ended), next(
        r for r in ended if not r.startswith("421 4.4.2 ")
    )
    assert most_bytes < before_bytes + KEPT_BYTES + slow * CONNECTION_BYTES
    for sent in served[-1:]:
        assert await world.fates(sent) == {place("quick"): EventType.DELIVERED}
    assert not [message for message in place.mail if place("slow") in message.recipients]
    await until_closed(world)


async def until_closed(world: FaultWorld) -> None:
    deadline = time.monotonic() + 20
    while await world.metric("postrail_ingress_open_connections") > 0:
        assert time.monotonic() < deadline, "connections stay open"
        await asyncio.sleep(0.1)


# 27: too large, too long, too many


class Bystander:
    """A session beside the others that says NOOP all the time; `longest_seconds` it had to wait for an answer."""

    def __init__(self, world: FaultWorld) -> None:
        self.longest_seconds = 0.0
        self.most_bytes = 0
        self._world = world

    async def watch(self, work: Callable[[], Awaitable[None]]) -> None:
        client = await self._world.connect()
        running = asyncio.ensure_future(work())
        while not running.done():
            started = time.monotonic()
            assert (await client.say("NOOP")).startswith("250 ")
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)
            self.most_bytes = max(self.most_bytes, self._world.memory_bytes)
            await asyncio.sleep(0.01)
        await client.close()
        await running


async def give(client: Client, content: bytes, *, size: int | None = None, to: str) -> str:
    """One transaction whose content is sent as it is; the last reply."""
    declared = f" SIZE={size}" if size is not None else ""
    for line in (f"MAIL FROM:<{SENDER}>{declared}", f"RCPT TO:<{to}>", "DATA"):
        reply = await client.say(line)
        if reply[0] not in "23":
            return reply
    with suppress(ConnectionError):
        for start in range(0, len(content), 1 << 18):
            await client.send(content[start : start + (1 << 18)])
        await client.send(b".\r\n")
    return await client.reply()


HEAD = f"From: {SENDER}\r\nSubject: large\r\n\r\n".encode()
LINE = b"y" * 76 + b"\r\n"


def lines(size_bytes: int) -> bytes:
    return HEAD + LINE * (size_bytes // len(LINE))


@pytest.mark.parametrize(
    ("content", "size", "expected"),
    [
        (HEAD, MAX_MESSAGE_BYTES + 1, "552 5.3.4 "),
        (HEAD, 10**19, "552 5.3.4 "),
        (lines(60_000_000), None, "552 5.3.4 "),
        (lines(60_000_000), 1000, "552 5.3.4 "),
        (HEAD + b"x" * 1_000_000 + b"\r\n", None, "500 5.6.0 "),
        (HEAD + b"x" * (1 << 20) + b"\r\n", None, "500 5.6.0 "),
        (b"From: " + SENDER.encode() + b"\r\n" + b"X-Many: 1\r\n" * 30_000 + b"\r\n", None, "552 5.3.4 "),
        (b"From: " + b"a@shop.example, " * 10_000 + b"\r\n\r\n", None, "554 5.6.0 "),
    ],
    ids=[
        "SIZE too large",
        "SIZE enormous",
        "60 MB",
        "SIZE lies, 60 MB",
        "line of 1 MB",
        "line of 1 MiB",
        "header",
        "From",
    ],
)
async def test_what_is_too_large_is_refused_and_delays_nobody(
    world: FaultWorld, place: Place, content: bytes, size: int | None, expected: str
) -> None:
    base_bytes = world.memory_bytes
    sessions = 4
    replies: list[str] = []

    async def one() -> None:
        client = await world.connect()
        replies.append(await give(client, content, size=size, to=place("large")))
        await client.close()

    async def work() -> None:
        await asyncio.gather(*(one() for _ in range(sessions)))

    bystander = Bystander(world)
    await bystander.watch(work)
    assert len(replies) == sessions
    assert all(reply.startswith(expected) for reply in replies), replies
    assert bystander.longest_seconds < LONGEST_STALL_SECONDS
    assert bystander.most_bytes < base_bytes + KEPT_BYTES + (sessions + 1) * CONNECTION_BYTES
    assert not [message for message in place.mail if place("large") in message.recipients]
    assert not [path for path in (world.system.folder / "data").rglob("*.tmp") if path.is_file()]


async def test_ten_thousand_parts_are_passed_on_as_they_are(world: FaultWorld, place: Place) -> None:
    # Postrail does not take MIME apart, so many or nested parts cost what their bytes cost.
    part = b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    body = part * 10_000 + b"--b--\r\n" * 10_000
    fields = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    sent: list[object] = []

    async def work() -> None:
        one = await world.submit(place("parts"), body=body, extra=fields)
        sent.append(one)
        assert await world.fates(one) == {place("parts"): EventType.DELIVERED}

    bystander = Bystander(world)
    await bystander.watch(work)
    assert len(sent) == 1
    assert bystander.longest_seconds < LONGEST_STALL_SECONDS


async def test_many_at_the_same_time_share_the_memory_that_is_there_for_content(
    world: FaultWorld, place: Place
) -> None:
    base_bytes = world.memory_bytes
    senders, size = 16, 8_000_000
    body = os.urandom(size // 80).hex().encode()
    body = b"".join(body[start : start + 76] + b"\r\n" for start in range(0, len(body), 76)) * 40

    async def one() -> None:
        client = await world.connect()
        ledger_id, content = world.content(body=body)
        assert (await give(client, content, to=place("heavy"))).startswith("250 ")
        world.ledger.submitted(ledger_id, place("heavy"), sha256(body).digest())
        await client.close()

    async def work() -> None:
        await asyncio.gather(*(one() for _ in range(senders)))

    bystander = Bystander(world)
    await bystander.watch(work)
    await world.until(lambda: sum(place("heavy") in message.recipients for message in place.mail) == senders)
    assert senders * len(body) > 2 * KEPT_BYTES, "without a bound it would not fit"
    assert bystander.most_bytes < base_bytes + KEPT_BYTES + (senders + 1) * CONNECTION_BYTES
    assert bystander.longest_seconds < LONGEST_STALL_SECONDS
    place.mail.clear()
