"""Asks a broker, over Kafka's protocol, which brokers it knows and whether all replicas are in sync.

Only what waiting needs: a listening socket accepts before the broker serves, so that a connection alone says nothing. Its
neighbour: `nodes`, which polls it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

_METADATA, _VERSION, _ALL_TOPICS = 3, 1, -1


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as one broker sees it."""

    brokers: frozenset[int] = frozenset()
    """Ids of those that it believes alive; empty when it does not answer, or knows no controller."""
    in_sync: bool = False
    """Whether every replica of every partition is in sync."""


def ask(host: str, port: int, timeout_seconds: float = 5.0) -> View:
    """What the broker at this plain listener says."""
    try:
        with socket.create_connection((host, port), timeout=timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(_request())
            return _view(_Answer(_read(connection)))
    except (OSError, struct.error, ValueError):
        return View()


def _request() -> bytes:
    client = b"wait"
    body = struct.pack(">hhih", _METADATA, _VERSION, 1, len(client)) + client + struct.pack(">i", _ALL_TOPICS)
    return struct.pack(">i", len(body)) + body


def _read(connection: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise ValueError("the broker closed the connection")
        received += piece
    return received


class _Answer:
    """Reads an answer's fields in order."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 4  # after the correlation id

    def number(self, kind: str) -> int:
        """One integer: `b`, `h` or `i` as in struct."""
        (value,) = struct.unpack_from(">" + kind, self._content, self._at)
        self._at += struct.calcsize(kind)
        return int(value)

    def skip_text(self) -> None:
        length = self.number("h")
        self._at += max(0, length)

    def each(self, read: Callable[[], int]) -> list[int]:
        """The elements of an array."""
        return [read() for _ in range(self.number("i"))]


def _view(answer: _Answer) -> View:
    """Metadata response, version 1: brokers, the controller's id, topics with their partitions."""

    def broker() -> int:
        node = answer.number("i")
        answer.skip_text()
        answer.number("i")
        answer.skip_text()
        return node

    def missing_of_partition() -> int:
        answer.number("h")
        answer.number("i")
        answer.number("i")
        replicas = answer.each(lambda: answer.number("i"))
        return len(replicas) - len(answer.each(lambda: answer.number("i")))

    def missing_of_topic() -> int:
        answer.number("h")
        answer.skip_text()
        answer.number("b")
        return sum(answer.each(missing_of_partition))

    brokers = frozenset(answer.each(broker))
    if answer.number("i") < 0:
        return View()
    return View(brokers, in_sync=not any(answer.each(missing_of_topic)))
