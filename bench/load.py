"""Postfix's smtp-source and smtp-sink: the same source and the same sink for every system.

Owns: starting them, counting what arrived and timing it. Knows nothing of the systems between them.
"""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench import process_tree
from bench.dkim_key import SENDER_DOMAIN

RECIPIENT_DOMAIN = "receiver.test"
_POLL_SECONDS = 0.02
_COUNTER_TAIL_BYTES = 256


class BenchmarkError(Exception):
    """The benchmark cannot go on; the text says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class SourceRun:
    """One finished smtp-source: wall-clock start (seconds since the epoch), and the CPU seconds that it took."""

    started_at_seconds: float
    ended_at_seconds: float
    cpu_seconds: float


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_greeting(port: int, timeout_seconds: float, what: str) -> None:
    """Wait until an SMTP server on the loopback port greets with 220.

    Raises:
        BenchmarkError: it did not within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                if connection.recv(512).startswith(b"220"):
                    connection.sendall(b"QUIT\r\n")
                    connection.recv(512)
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise BenchmarkError(f"{what} did not greet on port {port} within {timeout_seconds:.0f} s; see its log")


def wait_for_port(port: int, timeout_seconds: float, what: str) -> None:
    """Wait until something listens on the loopback port; raises BenchmarkError as `wait_for_greeting`."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise BenchmarkError(f"{what} did not listen on port {port} within {timeout_seconds:.0f} s")


def tool(name: str) -> str:
    """Return the path of a needed program.

    Raises:
        BenchmarkError: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise BenchmarkError(f"{name} is missing; install the Debian packages listed in bench/README.md")
    return path


def send(
    port: int,
    *,
    messages: int,
    sessions: int,
    size_bytes: int,
    recipient_domain: str = RECIPIENT_DOMAIN,
    timeout_seconds: float = 1800,
) -> SourceRun:
    """Submit numbered messages with smtp-source and wait until the last one is accepted.

    The recipients are 1r, 2r, ... at ``recipient_domain`` (-N); connections stay open (-d).

    Raises:
        BenchmarkError: a message was refused, or the time is over.
    """
    # fmt: off
    command = [
        tool("smtp-source"), "-4", "-d", "-N", "-s", str(sessions), "-m", str(messages), "-l", str(size_bytes),
        "-M", "source.test", "-f", f"news@{SENDER_DOMAIN}", "-t", f"r@{recipient_domain}", f"127.0.0.1:{port}",
    ]
    # fmt: on
    usage_before = os.times()
    started_at_seconds = time.time()
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"smtp-source stopped early: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"smtp-source had not ended after {timeout_seconds:.0f} s") from error
    usage = os.times()
    cpu = usage.children_user + usage.children_system - usage_before.children_user - usage_before.children_system
    return SourceRun(started_at_seconds, time.time(), cpu)


class Sink:
    """A running smtp-sink. It counts messages into a file (-c), whose time of change is the last message's arrival."""

    def __init__(self, directory: Path, name: str, *, keep: bool = False) -> None:
        self.port = free_port()
        self.directory = directory / name
        self.directory.mkdir()
        self.directory.chmod(0o777)
        self._counter = directory / f"{name}.count"
        command = [tool("smtp-sink"), "-4", "-c", "-m", "1000", "-h", "sink.test"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        if keep:
            command += ["-d", f"{self.directory}/m."]
        command += [f"127.0.0.1:{self.port}", "1000"]
        with self._counter.open("wb") as counter:
            self._process = subprocess.Popen(command, stdout=counter, stderr=subprocess.STDOUT)
        wait_for_greeting(self.port, 10, "smtp-sink")

    def count(self) -> int:
        """Return how many messages have arrived so far."""
        with self._counter.open("rb") as counter:
            end = counter.seek(0, os.SEEK_END)
            counter.seek(max(0, end - _COUNTER_TAIL_BYTES))
            whole_lines = counter.read().rpartition(b"\r")[0]
        _, found, value = whole_lines.rpartition(b"mesg=")
        return int(value) if found else 0

    def changed_at_seconds(self) -> float:
        """Return when the counter last moved, in seconds since the epoch (the kernel's coarse clock, about 4 ms)."""
        return self._counter.stat().st_mtime

    def wait_for(self, total: int, stall_seconds: float) -> None:
        """Wait until ``total`` messages have arrived.

        Raises:
            BenchmarkError: nothing arrived for ``stall_seconds``.
        """
        seen, moved_at_seconds = -1, time.monotonic()
        while True:
            count = self.count()
            if count >= total:
                return
            if count != seen:
                seen, moved_at_seconds = count, time.monotonic()
            elif time.monotonic() - moved_at_seconds > stall_seconds:
                raise BenchmarkError(
                    f"only {count} of {total} messages reached the sink, none for {stall_seconds:.0f} s"
                )
            time.sleep(_POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the sink has taken so far."""
        return process_tree.cpu_seconds([self._process.pid])

    def stop(self) -> None:
        """End the sink."""
        self._process.kill()
        self._process.wait()
