"""What submission refuses or puts off because of limits, shortages and the log, with its code and enhanced code."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from postrail.log.interface import Append, Log, LogFull, LogUnavailable, Position
from tests.support.ingress import (
    HEADER,
    PASSWORD,
    SUBMISSION,
    TRUSTED,
    Client,
    Ingress,
    client_context,
    connect,
    conversation,
    in_thread,
    running,
    settings,
)


class FailingLog:
    """The log, but every append fails with the given error while it is set."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.error: Exception | None = None

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        if self.error is not None:
            raise self.error
        return await self._log.append(appends)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize(
    ("error", "expected", "blobs_left"),
    [(LogFull("full"), "452 4.3.1", 0), (LogUnavailable("gone"), "451 4.3.0", 1)],
)
async def test_a_log_that_cannot_store_gets_no_250_and_resumes(
    tmp_path: Path, error: Exception, expected: str, blobs_left: int
) -> None:
    failing: list[FailingLog] = []

    def wrap(log: Log) -> Log:
        failing.append(FailingLog(log))
        return failing[0]

    def submit(client: Client, body: bytes) -> str:
        client.say("MAIL FROM:<a@example.com>")
        client.say("RCPT TO:<b@example.org>")
        client.say("DATA")
        return client.content(HEADER + body + b".\r\n")

    async with running(tmp_path, settings(tmp_path), wrap=wrap) as ingress:
        client = await in_thread(connect, ingress)
        failing[0].error = error
        large = (b"x" * 78 + b"\r\n") * 8000
        assert (await in_thread(submit, client, b"body\r\n")).startswith(expected + " ")
        assert (await in_thread(submit, client, large)).startswith(expected + " ")
        assert len(ingress.blob_files()) == blobs_left
        failing[0].error = None
        assert (await in_thread(submit, client, b"body\r\n")).startswith("250 ")
        assert len(await ingress.stored()) == 1
        await in_thread(client.close)


async def with_settings(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], talk: Callable[[Ingress], str], **limits: object
) -> str:
    data = settings(tmp_path, **limits)
    change(data)
    async with running(tmp_path, data) as ingress:
        return await in_thread(talk, ingress)


def nothing(_: dict[str, Any]) -> None:
    return


async def test_mail_without_a_key_is_put_off_where_keys_are_required(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        key = {"selector": "s", "key_file": str(tmp_path / "missing.pem")}
        data["signing"] = {"require": True, "domains": {"example.com": {"keys": [key]}}}

    def talk(ingress: Ingress) -> str:
        replies = []
        with connect(ingress) as client:
            for domain in (b"example.com", b"sub.example.com", b"example.org"):
                client.say("MAIL FROM:<a@example.com>")
                client.say("RCPT TO:<b@example.org>")
                client.say("DATA")
                replies.append(client.content(b"From: a@" + domain + b"\r\n\r\n.\r\n")[:9])
        return " ".join(replies)

    assert await with_settings(tmp_path, change, talk) == "451 4.7.5 451 4.7.5 451 4.7.5"


async def test_a_submitter_that_sends_too_fast(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["submitters"][1]["messages_per_minute"] = 2

    def talk(ingress: Ingress) -> str:
        with connect(ingress) as client:
            for _ in range(2):
                assert client.say("MAIL FROM:<a@example.com>").startswith("250")
                client.say("RSET")
            return client.say("MAIL FROM:<a@example.com>")

    assert (await with_settings(tmp_path, change, talk)).startswith("450 4.7.1 ")


async def test_too_much_waits_for_signing(tmp_path: Path) -> None:
    data = settings(tmp_path)
    data["ingress"]["max_queue_records"] = 2

    def submit(ingress: Ingress) -> str:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com>")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            return client.content(HEADER + b".\r\n")

    async with running(tmp_path, data) as ingress:
        for _ in range(2):
            assert (await in_thread(submit, ingress)).startswith("250 ")
        async with asyncio.timeout(10):
            while not (await in_thread(conversation, ingress, TRUSTED, ["MAIL FROM:<a@example.com>"])).startswith(  # noqa: ASYNC110  # the sweep has no event to wait for
                "452 4.3.1 "
            ):
                await asyncio.sleep(0.1)


async def test_too_many_messages_on_a_connection(tmp_path: Path) -> None:
    def talk(ingress: Ingress) -> str:
        with connect(ingress) as client:
            client.sendmail("a@example.com", ["b@example.org"], "From: a@example.com\r\n\r\n")
            return client.say("MAIL FROM:<a@example.com>")

    reply = await with_settings(tmp_path, nothing, talk, max_messages_per_connection=1)
    assert reply.startswith("421 4.7.0 ")


async def test_too_many_errors_on_a_connection(tmp_path: Path) -> None:
    def talk(ingress: Ingress) -> str:
        with connect(ingress) as client:
            assert client.say("FROB").startswith("500 5.5.2")
            assert client.say("FROB").startswith("500 5.5.2")
            code, text = client.getreply()
            return f"{code} {text.decode()}"

    reply = await with_settings(tmp_path, nothing, talk, max_errors_per_connection=2)
    assert reply.startswith("421 4.7.0 ")


@pytest.mark.parametrize(
    "limits",
    [{"max_connections": 1}, {"max_connections_per_client": 1}, {"new_connections_per_client_per_minute": 1}],
)
async def test_too_many_connections(tmp_path: Path, limits: dict[str, object]) -> None:
    def talk(ingress: Ingress) -> str:
        with connect(ingress), socket.create_connection(("127.0.0.1", ingress.port(TRUSTED)), timeout=10) as second:
            return second.recv(1000).decode()

    assert (await with_settings(tmp_path, nothing, talk, **limits)).startswith("421 4.7.0 ")


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        ({"command_timeout_seconds": 0.2}, []),
        ({"command_timeout_seconds": 0.2}, ["MAIL FROM:<a@example.com>"]),
        ({"data_timeout_seconds": 0.2}, ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA"]),
        ({"data_timeout_seconds": 0.2}, ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "BDAT 10"]),
    ],
)
async def test_silence(tmp_path: Path, limits: dict[str, object], lines: list[str]) -> None:
    def talk(ingress: Ingress) -> str:
        with connect(ingress) as client:
            for line in lines[:-1]:
                client.say(line)
            assert client.sock is not None
            if lines:
                client.sock.sendall(lines[-1].encode() + b"\r\n")
            return b"".join(iter(lambda: client.sock.recv(1000), b"")).decode()  # type: ignore[union-attr]

    assert "421 4.4.2 " in await with_settings(tmp_path, nothing, talk, **limits)


async def test_one_byte_at_a_time_ends_at_the_deadline_of_the_message(tmp_path: Path) -> None:
    async with running(tmp_path, settings(tmp_path, message_timeout_seconds=0.4)) as ingress:
        reader, writer = await asyncio.open_connection("127.0.0.1", ingress.port(TRUSTED))
        writer.write(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
        reply = asyncio.create_task(reader.read(-1))
        while not reply.done():
            writer.write(b"x")
            await asyncio.wait({reply}, timeout=0.05)
        assert b"\r\n421 4.4.2 " in await reply
        writer.close()


async def test_guessing_is_slowed_and_then_refused_and_others_are_not_affected(tmp_path: Path) -> None:
    wrong = "AUTH PLAIN AHNob3AAd3Jvbmc="

    def guess(ingress: Ingress) -> list[str]:
        with connect(ingress, SUBMISSION, tls=True) as client:
            replies = [client.say(wrong)[:9] for _ in range(4)]
        with connect(ingress, SUBMISSION, tls=True) as again:
            return [*replies, again.say(wrong)[:9]]

    def be_somebody_else(ingress: Ingress) -> int:
        with Client("127.0.0.1", ingress.port(SUBMISSION), "x", 10, ("127.0.0.2", 0)) as client:
            client.starttls(context=client_context())
            return client.login("shop", PASSWORD)[0]

    async with running(tmp_path, settings(tmp_path, auth_failure_delay_seconds=0.05)) as ingress:
        assert await in_thread(guess, ingress) == ["535 5.7.8"] * 3 + ["421 4.7.0"] * 2
        assert await in_thread(be_somebody_else, ingress) == 235


async def test_shutting_down_tells_idle_sessions_and_lets_content_finish(tmp_path: Path) -> None:
    def begin(ingress: Ingress) -> tuple[Client, Client]:
        idle, busy = connect(ingress), connect(ingress)
        busy.say("MAIL FROM:<a@example.com>")
        busy.say("RCPT TO:<b@example.org>")
        busy.say("DATA")
        return idle, busy

    async with running(tmp_path, settings(tmp_path)) as ingress:
        idle, busy = await in_thread(begin, ingress)
        drained = asyncio.create_task(ingress.service.drain())
        assert (await in_thread(idle.getreply))[0] == 421
        reply = await in_thread(busy.content, HEADER + b".\r\n")
        assert reply.startswith("250 2.0.0 Ok: queued")
        assert (await in_thread(busy.getreply)) == (421, b"4.3.2 Shutting down; try again")
        await drained
        assert len(await ingress.stored()) == 1
        idle.close()
        busy.close()
