"""Every refusal of submission, with its code and enhanced code."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from postrail.log.interface import Append, Log, LogFull, LogUnavailable, Position
from tests.support.ingress import (
    PASSWORD,
    STRANGERS,
    SUBMISSION,
    TRUSTED,
    Client,
    Ingress,
    client_context,
    connect,
    in_thread,
    running,
    settings,
)

HEADER = b"From: a@example.com\r\n\r\n"


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Ingress]:
    limits = {
        "max_message_bytes": 100_000,
        "max_header_bytes": 2000,
        "max_line_bytes": 5000,
        "max_recipients": 3,
        "max_errors_per_connection": 50,
    }
    async with running(tmp_path, settings(tmp_path, **limits)) as started:
        yield started


def conversation(ingress: Ingress, listener: int, lines: Sequence[str], **how: bool) -> str:
    """Say the lines; the last reply. A line that starts with `.` is content. Blocking."""
    with connect(ingress, listener, **how) as client:
        reply = ""
        for line in lines:
            reply = client.say(line)
        return reply


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["MAIL FROM:<a@example.com"], "501 5.1.7"),
        (["MAIL FROM:a@example.com"], "501 5.1.7"),
        (["MAIL FROM:<a@example..com>"], "501 5.1.7"),
        (["MAIL FROM:<a>"], "501 5.1.7"),
        (["MAIL FROM:<a@[192.0.2.1]>"], "501 5.1.7"),
        (["MAIL FROM:<a..b@example.com>"], "501 5.1.7"),
        (["MAIL <a@example.com>"], "501 5.5.2"),
        (["MAIL FROM:<a@example.com> SIZE=100001"], "552 5.3.4"),
        (["MAIL FROM:<a@example.com> SIZE=many"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com> BODY=9BIT"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com> BODY=BINARYMIME"], "555 5.5.4"),
        (["MAIL FROM:<a@example.com> SIZE=1 SIZE=2"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com> RET=SOME"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com> ENVID=a+zz"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com> COLOUR=blue"], "555 5.5.4"),
        (["RCPT TO:<b@example.org>"], "503 5.5.1"),
        (["DATA"], "503 5.5.1"),
        (["MAIL FROM:<a@example.com>", "DATA"], "503 5.5.1"),
        (["MAIL FROM:<a@example.com>", "MAIL FROM:<a@example.com>"], "503 5.5.1"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org"], "501 5.1.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b>"], "553 5.1.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<>"], "553 5.1.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@-example.org>"], "553 5.1.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@[127.0.0.1]>"], "553 5.1.3"),
        (["MAIL FROM:<a@example.com>", f"RCPT TO:<{'b' * 65}@example.org>"], "553 5.1.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org> NOTIFY=NEVER,DELAY"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org> ORCPT=b@example.org"], "501 5.5.4"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org> COLOUR=blue"], "555 5.5.4"),
        (["MAIL FROM:<a@example.com>", *[f"RCPT TO:<b{number}@example.org>" for number in range(4)]], "452 4.5.3"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<c%d@example.org>"], "550 5.7.1"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<example.net!c@example.org>"], "550 5.7.1"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<@example.net:c@example.org>"], "550 5.7.1"),
        (["MAIL FROM:<a@example.com>", 'RCPT TO:<"c@example.net"@example.org>'], "550 5.7.1"),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<c@example.net@example.org>"], "550 5.7.1"),
        (["EHLO"], "501 5.5.4"),
        (["EHLO two words"], "501 5.5.4"),
        (["EHLO name\t(injected)"], "501 5.5.4"),
        (["FROB"], "500 5.5.2"),
        (["N" * 5000], "500 5.5.2"),
        (["N" * 20_000], "500 5.5.2"),
        (["RSET now"], "501 5.5.4"),
        (["EXPN list"], "502 5.5.1"),
        (["VRFY b@example.org"], "252 2.5.1"),
        (["AUTH PLAIN AGEAYg=="], "502 5.5.1"),
        (["BDAT x"], "501 5.5.4"),
        (["BDAT 0 LAST"], "503 5.5.1"),
    ],
)
async def test_commands_of_a_trusted_client(ingress: Ingress, lines: list[str], expected: str) -> None:
    assert (await in_thread(conversation, ingress, TRUSTED, lines)).startswith(expected + " ")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("MAIL FROM:<ä@example.com>", "553 5.6.7"),
        ("MAIL FROM:<a@example.com>\r\nRCPT TO:<ö@example.org>", "553 5.6.7"),
    ],
)
async def test_internationalised_addresses_without_smtputf8(ingress: Ingress, command: str, expected: str) -> None:
    def say() -> str:
        with connect(ingress) as client:
            return [f"{code} {text.decode()}" for code, text in (raw(client, line) for line in command.split("\r\n"))][
                -1
            ]

    def raw(client: Client, line: str) -> tuple[int, bytes]:
        assert client.sock is not None
        client.sock.sendall(line.encode() + b"\r\n")
        return client.getreply()

    assert (await in_thread(say)).startswith(expected)


@pytest.mark.parametrize(
    "line", [b"NO\rOP\r\n", b"NOOP\n", b"NOOP \0\r\n", b"MAIL FROM:<a@example.com>\rRSET\r\n", b"NOOP \xff\r\n"]
)
async def test_bare_cr_lf_and_nul_in_commands(ingress: Ingress, line: bytes) -> None:
    def say() -> str:
        with connect(ingress) as client:
            assert client.content(b"NOOP\r\n").startswith("250")
            reply = client.content(line)
            assert client.say("NOOP").startswith("250")
            return reply

    assert (await in_thread(say)).startswith("500 5.5.2 ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + b"bare\rcr\r\n", "500 5.6.0"),
        (HEADER + b"bare\nlf\r\n", "500 5.6.0"),
        (HEADER + b"nul\0\r\n", "500 5.6.0"),
        (HEADER + b"x" * 5000 + b"\r\n", "500 5.6.0"),
        (HEADER + b"end\n.\nMAIL FROM:<smuggled@example.com>\r\n", "500 5.6.0"),
        (HEADER + b"end\r\n.\nMAIL FROM:<smuggled@example.com>\r\n", "500 5.6.0"),
        (HEADER + b"end\n.\r\nMAIL FROM:<smuggled@example.com>\r\n", "500 5.6.0"),
        (HEADER + b"end\r.\rMAIL FROM:<smuggled@example.com>\r\n", "500 5.6.0"),
        (HEADER + b"x" * 990 * 100 + b"\r\n", "500 5.6.0"),
        (HEADER + (b"x" * 990 + b"\r\n") * 101, "552 5.3.4"),
        (b"From: a@example.com\r\nX: " + b"x" * 2000 + b"\r\n\r\nbody\r\n", "552 5.3.4"),
        (b"Subject: none\r\n\r\nbody\r\n", "554 5.6.0"),
        (b"From: a@example.com\r\nFrom: b@example.com\r\n\r\n", "554 5.6.0"),
        (b"From: nobody\r\n\r\n", "554 5.6.0"),
        (b"not a header\r\n\r\n", "554 5.6.0"),
        (b"", "554 5.6.0"),
        (b"Received: x\r\n" * 101 + b"From: a@example.com\r\n\r\n", "554 5.4.6"),
        (b"X-Postrail-Stream: marketing\r\n" + HEADER, "550 5.7.1"),
        (b"X-Postrail-Tag: " + b"x" * 200 + b"\r\n" + HEADER, "554 5.6.0"),
    ],
)
async def test_content_is_refused_once_and_whole(ingress: Ingress, content: bytes, expected: str) -> None:
    def dot() -> str:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com>")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            reply = client.content(content + b".\r\n")
            assert client.say("NOOP") == "250 2.0.0 Ok", "exactly one reply, and the session is in step"
            return reply

    def chunk() -> str:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com>")
            client.say("RCPT TO:<b@example.org>")
            reply = client.content(b"BDAT %d LAST\r\n" % len(content) + content)
            assert client.say("NOOP") == "250 2.0.0 Ok"
            return reply

    for transfer in (dot, chunk):
        assert (await in_thread(transfer)).startswith(expected + " ")
    assert await ingress.stored() == []
    assert ingress.blob_files() == []


async def test_chunks_out_of_order_are_passed_over(ingress: Ingress) -> None:
    def say() -> list[str]:
        with connect(ingress) as client:
            replies = [client.content(b"BDAT 6\r\nNOOP\r\n"), client.say("MAIL FROM:<a@example.com>")]
            replies += [client.content(b"BDAT 6 LAST\r\nQUIT\r\n"), client.say("RCPT TO:<b@example.org>")]
            replies += [client.content(b"BDAT 5\r\nFrom:"), client.say("DATA"), client.say("RCPT TO:<c@example.org>")]
            return [*replies, client.say("RSET"), client.say("DATA")]

    replies = await in_thread(say)
    assert [reply[:9] for reply in replies] == [
        "503 5.5.1", "250 2.1.0", "503 5.5.1", "250 2.1.5", "250 2.0.0", "503 5.5.1", "503 5.5.1", "250 2.0.0", "503 5.5.1",
    ]  # fmt: skip


async def test_a_lie_about_the_size_ends_the_session_before_it_is_read_for_ever(ingress: Ingress) -> None:
    def flood() -> bytes:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com> SIZE=10")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            assert client.sock is not None
            sent = 0
            try:
                while sent < 60_000_000:
                    client.sock.sendall(HEADER + b"y" * 998 + b"\r\n")
                    sent += 1000
            except OSError:
                pass
            assert sent < 60_000_000
            try:
                return client.sock.recv(100)
            except ConnectionResetError:
                return b"552 5.3.4 (reset)"

    assert (await in_thread(flood)).startswith(b"552 5.3.4 ")


@pytest.mark.parametrize(
    ("lines", "tls", "expected"),
    [
        (["MAIL FROM:<a@example.com>"], False, "530 5.7.0"),
        (["RCPT TO:<b@example.org>"], False, "530 5.7.0"),
        (["MAIL FROM:<a@example.com>"], True, "530 5.7.0"),
        (["VRFY a"], True, "530 5.7.0"),
        (["AUTH PLAIN AHNob3AAcGFzcw=="], False, "538 5.7.11"),
        (["AUTH LOGIN"], False, "538 5.7.11"),
        (["AUTH CRAM-MD5"], True, "504 5.5.4"),
        (["AUTH"], True, "501 5.5.4"),
        (["AUTH PLAIN !!!"], True, "501 5.5.2"),
        (["AUTH PLAIN AGE="], True, "501 5.5.2"),
        (["AUTH LOGIN", "*"], True, "501 5.7.0"),
        (["AUTH PLAIN AHNob3AAd3Jvbmc="], True, "535 5.7.8"),
        (["AUTH PLAIN AG5vYm9keQB3cm9uZw=="], True, "535 5.7.8"),
        (["AUTH PLAIN AHJlbGF5AA=="], True, "535 5.7.8"),
        (["STARTTLS"], True, "503 5.5.1"),
        (["STARTTLS now"], False, "501 5.5.4"),
    ],
)
async def test_before_authentication(ingress: Ingress, lines: list[str], tls: bool, expected: str) -> None:
    assert (await in_thread(lambda: conversation(ingress, SUBMISSION, lines, tls=tls))).startswith(expected + " ")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["MAIL FROM:<a@example.org>"], "550 5.7.1"),
        (["MAIL FROM:<a@notexample.com>"], "550 5.7.1"),
        (["MAIL FROM:<>"], "550 5.7.1"),
        (["MAIL FROM:<@example.net:a@example.com>"], "550 5.7.1"),
        (["AUTH PLAIN AHNob3AAd3Jvbmc="], "503 5.5.1"),
        (["MAIL FROM:<a@example.com>", "AUTH LOGIN"], "503 5.5.1"),
    ],
)
async def test_after_authentication(ingress: Ingress, lines: list[str], expected: str) -> None:
    assert (await in_thread(lambda: conversation(ingress, SUBMISSION, lines, login=True))).startswith(expected + " ")


@pytest.mark.parametrize("author", [b"a@example.org", b"x <a@example.com>, y <b@example.org>"])
async def test_the_from_field_must_be_the_submitters_too(ingress: Ingress, author: bytes) -> None:
    def submit() -> str:
        with connect(ingress, SUBMISSION, login=True) as client:
            client.say("MAIL FROM:<a@sub.example.com>")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            return client.content(b"From: " + author + b"\r\n\r\n.\r\n")

    assert (await in_thread(submit)).startswith("550 5.7.1 ")
    assert await ingress.stored() == []


@pytest.mark.parametrize("sender", ["a@example.com", ""])
async def test_no_relay_for_strangers(ingress: Ingress, sender: str) -> None:
    lines = [f"MAIL FROM:<{sender}>", "RCPT TO:<b@example.org>", "DATA"]
    for count in range(1, 4):
        reply = await in_thread(conversation, ingress, STRANGERS, lines[:count])
        assert reply.startswith("550 5.7.1 ")


async def test_commands_after_starttls_in_the_clear_are_never_run(ingress: Ingress) -> None:
    def inject() -> bytes:
        with socket.create_connection(("127.0.0.1", ingress.port(SUBMISSION)), timeout=10) as plain:
            plain.recv(1000)
            plain.sendall(b"EHLO client.example.net\r\n")
            plain.recv(1000)
            plain.sendall(b"STARTTLS\r\nEHLO injected\r\nNOOP\r\n")
            return b"".join(iter(lambda: plain.recv(1000), b""))

    assert (await in_thread(inject)).startswith(b"554 5.5.1 ")


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
