"""The demonstration as a person runs it, and its receivers and DNS server over real sockets."""

import asyncio
import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dns.exception
import dns.rcode
import dns.resolver
import pytest

from postrail.demo.credentials import server_context, write_certificate
from postrail.demo.dns_server import DnsServer, Fault
from postrail.demo.receivers import Behaviour, Received, Receiver

DEMO = [sys.executable, "-m", "postrail", "demo"]


def environment(folder: Path) -> dict[str, str]:
    """Temporary folders go where the test can look at them."""
    return {**os.environ, "TMPDIR": str(folder)}


def processes_on(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "postrail up" in line:
            found.append(line)
    return found


def test_ends_by_itself_with_even_books(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--messages", "150", "--json", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result.keys() >= {"accepted", "delivered", "bounced", "deferred", "lost", "duplicates", "seconds"}
    assert result["accepted"] == 150 == result["delivered"] + result["bounced"]
    assert result["bounced"] > 0
    assert result["temporary_refusals"] > 0
    assert (result["deferred"], result["lost"], result["duplicates"], result["altered"]) == (0, 0, 0, 0)
    assert result["signatures_valid"] == result["signatures_checked"] > 0
    assert "The books are even" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_interrupt_stops_everything_that_was_started(tmp_path: Path) -> None:
    # A shell that runs the tests in the background has them ignore interrupts, and what they start inherits that.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *DEMO, "--messages", "100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path),
    )
    try:
        deadline = time.monotonic() + 30
        while not processes_on(tmp_path):
            assert time.monotonic() < deadline, "the demonstration started no system"
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert processes_on(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_kept_folder_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = subprocess.run([*DEMO, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64
    assert "is not empty; give --keep a new folder" in done.stderr


async def test_receiver_speaks_smtp_and_starttls() -> None:
    found: list[Received] = []
    with tempfile.TemporaryDirectory() as folder:
        context = server_context(*write_certificate(Path(folder), "mx.rcpt.example"))
    receiver = Receiver("mx.rcpt.example", "127.0.1.77", 0, Behaviour(), found.append, context, latency_seconds=0.01)
    await receiver.start()

    def send() -> None:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        with smtplib.SMTP(receiver.address, receiver.port, timeout=10) as client:
            client.starttls(context=trusting)
            for number in range(3):
                client.sendmail("a@b.example", ["c@rcpt.example"], f"Subject: {number}\r\n\r\n.dot\r\n")

    try:
        await asyncio.to_thread(send)
    finally:
        await receiver.stop()
    assert [received.content for received in found] == [f"Subject: {n}\r\n\r\n.dot\r\n".encode() for n in range(3)]
    assert all(received.tls for received in found)
    assert receiver.connections == 1
    assert not receiver.sessions


async def test_receiver_discards_what_was_pipelined_after_starttls() -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = server_context(*write_certificate(Path(folder), "mx.rcpt.example"))
    receiver = Receiver("mx.rcpt.example", "127.0.1.77", 0, Behaviour(), lambda received: None, context)
    await receiver.start()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(receiver.address, receiver.port)
        writer.write(b"STARTTLS\r\nNOOP\r\n")
        assert (await reader.readline()).startswith(b"220")
        assert (await reader.readline()).startswith(b"220")
        await writer.start_tls(trusting)
        writer.write(b"QUIT\r\n")
        assert (await reader.readline()).startswith(b"221")
        writer.close()
    finally:
        await receiver.stop()


async def test_dns_server_answers_a_real_resolver() -> None:
    server = DnsServer()
    await server.start()
    server.add("rcpt.example", "MX", "10 mx.rcpt.example.")
    server.add("big.example", "TXT", *(f'"{index}{"x" * 200}"' for index in range(20)))
    server.add("broken.example", "A", "127.0.0.9")
    server.fail("broken.example", Fault.SERVFAIL)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [server.address], server.port, 5.0
    try:
        answer = await asyncio.to_thread(resolver.resolve, "rcpt.example", "MX")
        assert [record.to_text() for record in answer] == ["10 mx.rcpt.example."]
        assert len(await asyncio.to_thread(resolver.resolve, "big.example", "TXT")) == 20
        with pytest.raises(dns.resolver.NXDOMAIN):
            await asyncio.to_thread(resolver.resolve, "google.com", "MX")
        with pytest.raises(dns.exception.DNSException):
            await asyncio.to_thread(resolver.resolve, "broken.example", "A")
    finally:
        await server.stop()
