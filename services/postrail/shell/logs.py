"""Structured logs: one JSON object a line, the message id in every line that is about a message.

Owns the format and the destination. A line has `ts` (Unix seconds), `level`, `service`, `event` and the caller's fields.
Lines are buffered and written by the event loop's next turn (warnings and errors at once), so that a busy service pays
for serialising, not for system calls. Never log a password, a key or the content of a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from typing import Final

import orjson

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_FLUSH_BYTES: Final = 64 << 10
_FLUSH_SECONDS: Final = 0.2


class Sink:
    """Where lines go: a file descriptor, with a buffer."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]
        self.worker: int | None = None
        self._fd = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
        self._buffer: list[bytes] = []
        self._size_bytes = 0
        self._scheduled = False

    def open(self, level: str, file: str | None, worker: int | None = None) -> None:
        """Set the threshold and the file (None: standard error).

        Raises:
            OSError: the file cannot be opened for appending.
        """
        self.flush()
        self.level = LEVELS[level]
        self.worker = worker
        if file is not None:
            self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, line: bytes, *, urgent: bool) -> None:
        """Take one line, newline included."""
        self._buffer.append(line)
        self._size_bytes += len(line)
        if urgent or self._size_bytes >= _FLUSH_BYTES:
            self.flush()
        elif not self._scheduled:
            try:
                asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
                self._scheduled = True
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write what is buffered. A log that cannot be written never stops the mail."""
        self._scheduled = False
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._size_bytes = 0
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._fd, data) :]


SINK: Final = Sink()


class Logger:
    """Writes lines for one service."""

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        line: dict[str, object] = {"ts": time.time(), "level": level, "service": self._service, "event": event}
        if SINK.worker is not None:
            line["worker"] = SINK.worker
        line.update(fields)
        SINK.write(
            orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS),
            urgent=LEVELS[level] >= LEVELS["warning"],
        )

    def debug(self, event: str, **fields: object) -> None:
        """For developers."""
        if SINK.level <= LEVELS["debug"]:
            self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happened, at most one line a message and service."""
        if SINK.level <= LEVELS["info"]:
            self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Somebody should look at this when they have time."""
        if SINK.level <= LEVELS["warning"]:
            self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Somebody should look at this now."""
        self._write("error", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._write("error", event, {**fields, "traceback": traceback.format_exc()})


def logger(service: str) -> Logger:
    """The logger of a service."""
    return Logger(service)
