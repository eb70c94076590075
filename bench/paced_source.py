"""Submits at a steady pace on a few sessions, whatever the answers take: for what depends on the rate.

Owns the sessions and their clock. `load.send` is for as fast as it goes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bench.dkim_key import SENDER_DOMAIN
from bench.load import RECIPIENT_DOMAIN, BenchmarkError, SourceRun

Submit = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""One transaction on a session that is ready for MAIL."""

_LINE = b"X" * 78 + b"\r\n"


def send_paced(port: int, *, messages: int, per_second: float, sessions: int, size_bytes: int) -> SourceRun:
    """Submit messages like those of `load.send`, so many a second, and wait until the last one is accepted.

    Raises:
        BenchmarkError: a message was refused, or the session was closed.
    """
    numbers = itertools.count(1)
    body = _LINE * (size_bytes // len(_LINE)) + b".\r\n"

    async def submit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipient = f"{next(numbers)}r@{RECIPIENT_DOMAIN}"
        commands = f"MAIL FROM:<news@{SENDER_DOMAIN}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        head = f"From: <news@{SENDER_DOMAIN}>\r\nTo: <{recipient}>\r\nSubject: at a steady pace\r\n\r\n"
        await transact(reader, writer, commands.encode(), head.encode() + body)

    started_at_seconds, cpu_seconds = time.time(), time.thread_time()
    try:
        asyncio.run(submit_paced(port, messages, per_second, sessions, submit))
    except* OSError as group:
        raise BenchmarkError(f"the source stopped early: {group.exceptions[0]}") from group
    return SourceRun(started_at_seconds, time.time(), time.thread_time() - cpu_seconds)


async def submit_paced(port: int, messages: int, per_second: float, sessions: int, submit: Submit) -> None:
    """Begin so many transactions a second, the sessions taking turns. One that is late catches up.

    Raises:
        ExceptionGroup: of OSError, where a session could not go on.
    """
    start = time.perf_counter()

    async def session(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await read_reply(reader)
        writer.write(b"EHLO source.test\r\n")
        await read_reply(reader)
        for place in range(number, messages, sessions):
            await asyncio.sleep(max(0.0, start + place / per_second - time.perf_counter()))
            await submit(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(session(number))


async def transact(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: bytes, content: bytes) -> None:
    """MAIL, one RCPT and DATA at once (RFC 2920), then the content with its final dot.

    Raises:
        ConnectionError: a reply was not 2xx or 3xx.
    """
    writer.write(commands)
    for _ in range(3):
        await read_reply(reader)
    writer.write(content)
    await read_reply(reader)


async def read_reply(reader: asyncio.StreamReader) -> None:
    """Read one reply; raises ConnectionError where it is not 2xx or 3xx."""
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in {b"2", b"3"}:
        raise ConnectionError(f"the server said {line!r}")
