"""The system under demonstration: its configuration, and the `postrail up` process itself.

Owns what a person would write by hand before the first start. The process is the real one, in a session of its own, so that
an interrupt reaches the demonstration only, which then stops the system in order. The chaos suite kills it instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from argon2 import PasswordHasher

from postrail.demo.credentials import write_certificate, write_dkim_key
from postrail.demo.dns_server import DnsServer
from postrail.demo.world import SENDER_DOMAIN, SENDER_HOST

SUBMITTER = "shop"
PASSWORD = "demonstration"  # noqa: S105  # of a system that lives for a minute on loopback
SOURCES = ("127.0.2.1", "127.0.2.2")
SELECTORS = {"rsa": "demo-rsa", "ed25519": "demo-ed25519"}
START_SECONDS = 60.0
STOP_SECONDS = 45.0


class SystemFailed(Exception):
    """`postrail up` did not start, or ended; the text has the end of what it said."""


@dataclass(slots=True)
class System:
    """`postrail up` on a folder of its own.

    Attributes:
        folder: configuration, keys, logs and data.
        dns: the server that it asks; its DKIM records are published there.
        mx_port: where receivers listen.
        overrides: sections merged over the generated configuration, field by field.
        submission_port, health_port: picked by `write` where they are 0; worker N's health port is the first one + N.
    """

    folder: Path
    dns: DnsServer
    mx_port: int
    workers: int = 1
    overrides: Mapping[str, object] = field(default_factory=dict)
    submission_port: int = 0
    health_port: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def config_file(self) -> Path:
        return self.folder / "postrail.yaml"

    @property
    def log_file(self) -> Path:
        return self.folder / "postrail.log"

    def write(self) -> None:
        """Write certificate, keys and configuration, and publish the DKIM records."""
        certificate_file, key_file = write_certificate(self.folder, SENDER_HOST)
        keys = []
        for algorithm, selector in SELECTORS.items():
            key_path = self.folder / f"{selector}.pem"
            record = write_dkim_key(key_path, algorithm)
            quoted = " ".join(f'"{record[start : start + 200]}"' for start in range(0, len(record), 200))
            self.dns.add(f"{selector}._domainkey.{SENDER_DOMAIN}", "TXT", quoted)
            keys.append({"selector": selector, "key_file": str(key_path)})
        self.submission_port = self.submission_port or _free_ports(1)
        self.health_port = self.health_port or _free_ports(self.workers)
        values = _merged(self._configuration(str(certificate_file), str(key_file), keys), self.overrides)
        self.config_file.touch(mode=0o600)
        self.config_file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def _configuration(self, certificate_file: str, key_file: str, keys: list[dict[str, str]]) -> dict[str, object]:
        return {
            "hostname": SENDER_HOST,
            "data_directory": str(self.folder / "data"),
            "workers": self.workers,
            "log": {"min_free_bytes": "64MiB"},
            "ingress": {
                "listeners": [{"kind": "submission", "address": "127.0.0.1", "port": self.submission_port}],
                "tls": {"certificate_file": certificate_file, "key_file": key_file},
            },
            "submitters": [
                {
                    "name": SUBMITTER,
                    "password_hash": PasswordHasher().hash(PASSWORD),
                    "domains": [SENDER_DOMAIN],
                    "stream": "transactional",
                }
            ],
            "pools": {
                "default": {
                    "sources": [
                        {"address": address, "ehlo": f"out{index}.{SENDER_DOMAIN}"}
                        for index, address in enumerate(SOURCES, 1)
                    ]
                }
            },
            "signing": {"domains": {SENDER_DOMAIN: {"keys": keys}}},
            "routing": {
                "dns": {
                    "nameservers": [f"{self.dns.address}:{self.dns.port}"],
                    "timeout_seconds": 1.0,
                    "negative_ttl_seconds": 1.0,
                },
                "mx_port": self.mx_port,
                "allow_loopback": True,
            },
            "delivery": {
                "default_limits": {"new_connections_per_minute": 6000},
                "retry": {
                    "delays_seconds": [1.0, 2.0, 4.0],
                    "tiers_seconds": [1.0, 2.0, 4.0],
                    "site_backoff_seconds": [0.5, 1.0, 2.0],
                },
                "drain_seconds": 10.0,
            },
            "health": {"port": self.health_port},
            "logging": {"file": str(self.log_file)},
        }

    async def start(self) -> None:
        """Start the process and wait until it takes submissions.

        Raises:
            SystemFailed: it ended, or does not answer in time.
        """
        with (self.folder / "output.log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "postrail",
                "up",
                "--config",
                str(self.config_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._is_ready():
                    if self.process.returncode is not None:
                        raise SystemFailed(f"`postrail up` ended with status {self.process.returncode}:\n{self.said()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.kill()
            raise SystemFailed(f"`postrail up` took no mail within {START_SECONDS:g} s:\n{self.said()}") from None

    async def _is_ready(self) -> bool:
        """Whether every worker takes mail."""
        for worker in range(self.workers):
            if not await self._answers(self.health_port + worker):
                return False
        return True

    async def _answers(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(5):
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> int:
        """Drain and end; returns the exit status (negative: the signal that ended it)."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            self.kill()
            return await self.process.wait()

    def kill(self) -> None:
        """End it at once, with all its workers, as a crash would."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def said(self, lines: int = 30) -> str:
        """The end of its output and of its log."""
        found = []
        for path in (self.folder / "output.log", self.log_file):
            if path.exists():
                found += path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return "\n".join(found)

    async def command(self, *arguments: str) -> str:
        """What a `postrail` command on this configuration prints; "" when it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "postrail",
            *arguments,
            "--config",
            str(self.config_file),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        return output.decode(errors="replace") if process.returncode == 0 else ""


def _free_ports(count: int) -> int:
    """The first of so many consecutive TCP ports that are free on 127.0.0.1."""
    for _ in range(50):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                for number in range(port + 1, port + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
                return port
    raise OSError(f"no {count} consecutive ports are free on 127.0.0.1")


def _merged(values: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(values)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
