"""A submission session fed by strangers: it answers or closes, and never stores what it did not say 250 to."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postrail.core.config import Config
from postrail.ingress.reception import Desk, Door
from postrail.ingress.session import SubmissionSession
from postrail.log.interface import Append, Position
from postrail.shell.blobs import DirectoryBlobStore
from postrail.shell.context import Context
from postrail.shell.dns import Resolver
from tests.support import ingress as support

HEADER = b"From: a@example.com\r\n\r\n"
COMMANDS = st.sampled_from(
    [
        b"EHLO x\r\n", b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n", b"RSET\r\n",
        b"BDAT 5\r\nFrom:", b"BDAT 0 LAST\r\n", b"BDAT 23 LAST\r\n" + HEADER, b"BDAT 9", b"AUTH PLAIN x\r\n", b"STARTTLS\r\n",
        HEADER, b".\r\n", b"\r\n.\r\n", b"\n.\n", b"\r", b"\n", b"\0", b"NOOP\r\n", b"QUIT\r\n",
    ]
)  # fmt: skip
INPUT = st.lists(st.one_of(COMMANDS, st.binary(max_size=20)), max_size=30)


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True

    abort = write_eof = close

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading


class CountingLog:
    """Takes appends and counts them; the session needs nothing else of a log."""

    def __init__(self) -> None:
        self.messages = 0

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        self.messages += 1
        return []


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, DirectoryBlobStore]:
    folder = tmp_path_factory.mktemp("fuzz")
    data = support.settings(folder, max_errors_per_connection=1000)
    del data["ingress"]["listeners"][:2]
    return Config.model_validate(data), DirectoryBlobStore(folder / "blobs")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(pieces=INPUT)
async def test_every_250_at_the_end_of_content_is_one_stored_message(
    surroundings: tuple[Config, DirectoryBlobStore], tmp_path: Path, pieces: list[bytes]
) -> None:
    config, blobs = surroundings
    loop = asyncio.get_running_loop()
    log = CountingLog()
    context: Any = Context(config, log, blobs, Resolver(config.routing.dns), 1, tmp_path)  # type: ignore[arg-type]
    desk = Desk(context, None, loop.time)
    session, wire = SubmissionSession(Door(desk, config.ingress.listeners[0]), loop), Wire()
    session.connection_made(wire)
    await asyncio.sleep(0)
    for piece in pieces:
        session.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    session.connection_lost(None)
    assert session.task is not None
    await session.task
    lines = wire.written.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line[:3].isdigit() and line[3:4] in {b" ", b"-"} for line in lines)
    assert sum(b"queued as" in line for line in lines) == log.messages
    assert not desk.sessions
    assert not any(b"Internal error" in line for line in lines)
    desk.credentials.close()
