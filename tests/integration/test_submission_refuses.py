"""What submission refuses because of what the client says, with its code and enhanced code."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.ingress import (
    HEADER,
    STRANGERS,
    SUBMISSION,
    TRUSTED,
    Client,
    Ingress,
    connect,
    conversation,
    in_thread,
    running,
    settings,
)


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
