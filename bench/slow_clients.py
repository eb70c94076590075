"""What 2,000 slow clients cost the others: latency of submission and of delivery without them, with them, and without again.

Run as ``python -m bench.slow_clients``; exit status 1 when the 99th percentile with them exceeds twice the one before. Half of
them give content, half a command, a byte a second each, from a process of their own. Owns the measurement; system, DNS server
and receiver are the demonstration's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from bench.load import free_port
from bench.paced_source import submit_paced, transact
from postrail.demo.dns_server import DnsServer
from postrail.demo.ledger import FIELD, ledger_id_of
from postrail.demo.receivers import Behaviour, Received, Receiver
from postrail.demo.system import System
from postrail.demo.world import SENDER_DOMAIN

_SENDER = f"orders@{SENDER_DOMAIN}"
_RECIPIENT = "user@quiet.example"
_SESSIONS = 4
_BODY = (b"z" * 76 + b"\r\n") * 130
_TRANSACTION = f"MAIL FROM:<{_SENDER}>\r\nRCPT TO:<{_RECIPIENT}>\r\nDATA\r\n".encode()
_MOST_RATIO = 2.0


@dataclass(slots=True)
class Latencies:
    """Of one phase, in seconds: from MAIL to the 250, and from MAIL to the receiver."""

    submission: list[float] = field(default_factory=list)
    delivery: list[float] = field(default_factory=list)

    def p99(self) -> tuple[float, float]:
        """The 99th percentiles of both."""
        return _percentile(self.submission, 0.99), _percentile(self.delivery, 0.99)


def _percentile(values: list[float], fraction: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * fraction))]


def _slow_clients(port: int, count: int, ready: Event) -> None:
    """Connect and send a byte a second until killed."""
    asyncio.run(_be_slow(port, count, ready))


async def _be_slow(port: int, count: int, ready: Event) -> None:
    clients = []
    for number in range(count):
        source = f"127.0.3.{number // 100 + 1}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        assert (await reader.readline()).startswith(b"220"), "a slow client was not let in"
        if number % 2:
            writer.write(b"EHLO slow.example\r\n" + _TRANSACTION)
        clients.append((reader, writer))
    ready.set()
    pause = 1 / count
    for reader, writer in itertools.cycle(clients):
        writer.write(b"x")
        assert not reader.at_eof(), "a slow client was closed during the measurement; its deadline must be longer"
        await asyncio.sleep(pause)


class _Load:
    """Messages at a steady pace on a few sessions."""

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._numbers: Iterator[int] = itertools.count()
        self._started: dict[str, float] = {}
        self._latencies = Latencies()

    def received(self, message: Received) -> None:
        """The receiver has it."""
        ledger_id = ledger_id_of(message.content)
        if ledger_id in self._started:
            self._latencies.delivery.append(time.perf_counter() - self._started.pop(ledger_id))

    async def run(self, seconds: float) -> Latencies:
        """One phase."""
        self._latencies = Latencies()
        await submit_paced(self._port, round(self._rate * seconds), self._rate, _SESSIONS, self._submit)
        for _ in range(100):
            if not self._started:
                return self._latencies
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{len(self._started)} messages were not delivered")

    async def _submit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ledger_id = f"slow-{next(self._numbers)}"
        head = f"From: {_SENDER}\r\nSubject: {ledger_id}\r\n{FIELD.decode()}: {ledger_id}\r\n\r\n"
        started = self._started[ledger_id] = time.perf_counter()
        await transact(reader, writer, _TRANSACTION, head.encode() + _BODY + b".\r\n")
        self._latencies.submission.append(time.perf_counter() - started)


async def _measure(folder: Path, slow: int, seconds: float, rate: float) -> list[Latencies]:
    dns = DnsServer()
    await dns.start()
    port = free_port()
    load = _Load(port, rate)
    receiver = Receiver("mx.quiet.example", "127.0.3.250", 0, Behaviour(), load.received)
    await receiver.start()
    dns.add("quiet.example", "MX", "10 mx.quiet.example.")
    dns.add("mx.quiet.example", "A", receiver.address)
    system = System(folder, dns, receiver.port, overrides=_overrides(port, slow))
    system.write()
    await system.start()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    crowd = context.Process(target=_slow_clients, args=(port, slow, ready), daemon=True)
    try:
        await load.run(3)
        before = await load.run(seconds)
        crowd.start()
        if not await asyncio.to_thread(ready.wait, 60):
            raise TimeoutError(f"{slow} slow clients did not connect in a minute")
        during = await load.run(seconds)
        if not crowd.is_alive():
            raise ConnectionError("the slow clients ended early")
        crowd.kill()
        crowd.join()
        await asyncio.sleep(1)
        return [before, during, await load.run(seconds)]
    finally:
        if crowd.is_alive():
            crowd.kill()
        await system.stop()
        await receiver.stop()
        await dns.stop()


def _overrides(port: int, slow: int) -> dict[str, Any]:
    listener = {
        "kind": "trusted",
        "address": "127.0.0.1",
        "port": port,
        "networks": ["127.0.0.0/8"],
        "submitter": "relay",
    }
    return {
        "ingress": {"listeners": [listener], "limits": {"max_connections": slow + 100}},
        "submitters": [{"name": "relay", "domains": [SENDER_DOMAIN]}],
        "delivery": {"default_limits": {"messages_per_second": 10_000, "new_connections_per_minute": 60_000}},
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000, help="slow ones")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase")
    parser.add_argument("--rate", type=float, default=100, help="messages a second of the others")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slow-clients-") as folder:
        phases = asyncio.run(_measure(Path(folder), options.clients, options.seconds, options.rate))
    print("| phase | messages | submission p50 ms | p99 ms | delivery p50 ms | p99 ms |\n|---|---|---|---|---|---|")
    for name, phase in zip(("before", f"with {options.clients} slow clients", "after"), phases, strict=True):
        figures = [
            f"{1000 * _percentile(values, fraction):.1f}"
            for values in (phase.submission, phase.delivery)
            for fraction in (0.5, 0.99)
        ]
        print(f"| {name} | {len(phase.submission)} | {' | '.join(figures)} |")
    before, during = phases[0].p99(), phases[1].p99()
    ratios = [now / then for now, then in zip(during, before, strict=True)]
    print(
        f"\np99 with them against before: submission {ratios[0]:.2f}, delivery {ratios[1]:.2f} (allowed: {_MOST_RATIO:g})"
    )
    return int(max(ratios) > _MOST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
