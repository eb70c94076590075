"""Receivers outside the cluster's pods: SMTP servers in this process, on addresses of their own, that record what they took.

Owns a thread with their event loop. What they recorded is the only witness of an end-to-end test: from which address, with which
envelope, which content. How they answer is a `Behaviour` of the demonstration's receivers. Neighbour: `cluster_books`.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from postrail.demo.ledger import ledger_id_of
from postrail.demo.receivers import Behaviour, Received, Receiver

Result = TypeVar("Result")
SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that was taken, and when (seconds since 1970)."""

    at: float
    ledger_id: str
    received: Received


class Receivers:
    """All receivers of a run; a context manager."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._receivers: dict[str, Receiver] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receivers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for receiver in self._receivers.values():
            self._do(receiver.stop())
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def listen(self, address: str, behaviour: Behaviour | None = None) -> None:
        """Take mail on an address."""
        receiver = Receiver(f"receiver-{address}", address, SMTP_PORT, behaviour or Behaviour(), self.took, self._tls)
        self._do(receiver.start())
        self._receivers[address] = receiver

    def behave(self, address: str, behaviour: Behaviour) -> None:
        """Answer otherwise from now on."""
        self._receivers[address].behaviour = behaviour

    def think(self, address: str, seconds: float) -> None:
        """Let the final dot wait so long for its answer."""
        self._receivers[address].latency_seconds = seconds

    def cut(self, address: str) -> None:
        """End all connections there at once."""
        self._do(_cut(self._receivers[address]))

    def arrivals(self, run: str = "") -> list[Arrival]:
        """What was taken so far of messages whose ledger id begins with this."""
        with self._lock:
            return [arrival for arrival in self._arrivals if arrival.ledger_id.startswith(run)]

    def took(self, received: Received) -> None:
        """A receiver has taken a message."""
        arrival = Arrival(time.time(), ledger_id_of(received.content) or "", received)
        with self._lock:
            self._arrivals.append(arrival)

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None, "receivers are used as a context manager"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _cut(receiver: Receiver) -> None:
    for session in list(receiver.sessions):
        session.cut()
