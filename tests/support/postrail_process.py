"""Postrail itself as tests run it: `postrail up` in a process of its own, its commands, and a client that submits to it.

Owns the configuration file, the processes and the reading of what the commands print. Its neighbours: `processes`, and
`mail_world`, which makes the configuration that the end-to-end tests share.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import smtplib
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.cli.main import main
from tests.support.processes import Daemon, tail, wait_for

COMMAND = (sys.executable, "-m", "postrail")
Json = dict[str, Any]


def unverified_tls() -> ssl.SSLContext:
    """For talking to a listener whose certificate nobody signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class PostrailProcess:
    """A system with its own data directory; it can be stopped, killed and started again.

    Attributes:
        config: what the file holds; a change counts from the next start on.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, workers: int = 1) -> None:
        self.config: Json = {**config, "data_directory": str(folder / "data")}
        self.workers = workers
        self._folder = folder
        self._daemon: Daemon | None = None
        folder.mkdir(exist_ok=True)

    @property
    def config_file(self) -> Path:
        """Where the configuration lies."""
        return self._folder / "postrail.yaml"

    @property
    def log(self) -> Path:
        """Standard output and error of all starts."""
        return self._folder / "postrail.log"

    def port(self, kind: str) -> int:
        """The port of the first listener of this kind."""
        for listener in self.config["ingress"]["listeners"]:
            if listener["kind"] == kind:
                return int(listener["port"])
        raise LookupError(kind)

    def start(self) -> None:
        """Start and return when every worker is ready."""
        self.write_config()
        workers = ("--workers", str(self.workers))
        self._daemon = Daemon([*COMMAND, "up", "--config", self.config_file, *workers], self.log)
        self._daemon.wait_until("readyz", self.ready, seconds=30)

    def write_config(self) -> None:
        """Write the file without starting anything."""
        self.config_file.write_text(yaml.safe_dump(self.config, allow_unicode=True), encoding="utf-8")

    def ready(self) -> bool:
        """Whether every worker says that it is."""
        first = int(self.config["health"]["port"])
        return all(self._answers(first + worker) for worker in range(self.workers))

    def _answers(self, port: int) -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return bool(self._fetch_from("readyz", port))
        return False

    def metrics(self, worker: int = 0) -> str:
        """The text of /metrics."""
        return self._fetch_from("metrics", int(self.config["health"]["port"]) + worker)

    @staticmethod
    def _fetch_from(path: str, port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return str(answer.read().decode())

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._daemon is not None
        return self._daemon.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop as a service manager does; the exit status must be 0."""
        if self._daemon is None:
            return
        status = self._daemon.stop(seconds=40, number=number)
        self._daemon = None
        if status != 0:
            pytest.fail(f"postrail up ended with {status}\n{tail(self.log)}")

    def kill(self) -> None:
        """kill -9, all processes."""
        for pid in self._processes():
            _kill(pid)
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon = None
        wait_for("the end of all workers", lambda: not self._processes())

    def kill_worker(self, number: int) -> None:
        """kill -9 one worker of several; the supervisor stays."""
        (pid,) = (pid for pid, words in self._processes().items() if words[-2:] == ["--worker-index", str(number)])
        _kill(pid)

    def _processes(self) -> dict[int, list[str]]:
        """Everything that runs with this configuration: process → command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")[:-1]
                if str(self.config_file) in words:
                    found[int(folder.name)] = words
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that takes --config with this configuration."""
        return run_command(*arguments, "--config", str(self.config_file))

    def events(self, message: str) -> list[Json]:
        """What `postrail trace` knows of a message, oldest first; empty when it knows nothing."""
        return self._rows("trace", message)

    def queue(self, *options: str) -> list[Json]:
        """What `postrail queue` says waits: a row for each message."""
        return self._rows("queue", "--messages", *options)

    def _rows(self, *arguments: str) -> list[Json]:
        """What a command prints with --json; run here, because it is asked many times."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = main([*arguments, "--json", "--config", str(self.config_file)])
        if status == 1 and not output.getvalue():
            return []
        assert status == 0, errors.getvalue()
        return [json.loads(line) for line in output.getvalue().splitlines()]

    def wait_for_event(self, message: str, kind: str, recipient: str = "", seconds: float = 20.0) -> Json:
        """Wait for an event of the kind (`delivered`, `deferred`, …) about the recipient, and return the newest."""

        def found() -> Json | None:
            for event in reversed(self.events(message)):
                if event["type"] == kind and (not recipient or recipient in event["recipients"]):
                    return event
            return None

        return wait_for(f"event {kind} of {message} {recipient}", found, seconds)

    def wait_until_empty(self, seconds: float = 30.0) -> None:
        """Wait until nothing waits any more."""
        wait_for("an empty queue", lambda: not self.queue(), seconds)

    def log_lines(self) -> Iterator[Json]:
        """The lines of the log that are JSON."""
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                parsed = json.loads(line)
                if isinstance(parsed, dict):
                    yield parsed


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def run_command(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `postrail` with these arguments until it ends."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=folder)


@contextlib.contextmanager
def submitting(
    process: PostrailProcess, user: str, password: str, *, implicit_tls: bool = False
) -> Iterator[smtplib.SMTP]:
    """An authenticated session on the submission listener: STARTTLS on 587, or TLS from the first byte on 465."""
    client: smtplib.SMTP
    if implicit_tls:
        port = process.port("submissions")
        client = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=30, context=unverified_tls())
    else:
        client = smtplib.SMTP("127.0.0.1", process.port("submission"), "client.test", timeout=30)
        client.starttls(context=unverified_tls())
    with client:
        client.ehlo()
        client.login(user, password)
        yield client


def send(
    client: smtplib.SMTP,
    sender: str,
    recipients: Sequence[str | tuple[str, str]],
    message: bytes,
    *,
    mail_options: Sequence[str] = (),
) -> str:
    """One transaction, every recipient of which must be accepted; returns Postrail's id of the message.

    Args:
        recipients: an address, or an address with its ESMTP parameters (`NOTIFY=NEVER`).
        message: with CRLF line ends; dots are doubled here.
    """
    utf8 = "SMTPUTF8" in mail_options
    if utf8:
        client.command_encoding = "utf-8"
    size = (f"SIZE={len(message)}",)
    code, text = client.mail(sender, [*size, *mail_options])
    assert code == 250, (code, text)
    for recipient in recipients:
        address, parameters = recipient if isinstance(recipient, tuple) else (recipient, "")
        code, text = client.rcpt(address, parameters.split())
        assert code == 250, (address, code, text)
    code, text = client.data(message)
    assert code == 250, (code, text)
    return str(text.decode().split()[-1])
