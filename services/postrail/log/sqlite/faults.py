"""What an error of SQLite means for the log: full, unavailable, or the end of the process.

Owns that classification and the last words before the process ends. An error of a write or an fsync is never retried: after
it, what the kernel holds of the file is unknown, and only a start from what is on the disk is safe.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import apsw

from postrail.log.interface import LogError, LogFull
from postrail.log.sqlite.schema import refusal
from postrail.shell import logs

LOG = logs.logger("log")

Fatal = Callable[[str], None]
"""Told why the process must end; does not return in production."""

EXIT_IO_ERROR = 74
"""EX_IOERR of sysexits.h."""

_HARMLESS_IO = frozenset(
    {
        apsw.SQLITE_IOERR_READ,
        apsw.SQLITE_IOERR_SHORT_READ,
        apsw.SQLITE_IOERR_NOMEM,
        apsw.SQLITE_IOERR_ACCESS,
        apsw.SQLITE_IOERR_FSTAT,
        apsw.SQLITE_IOERR_LOCK,
        apsw.SQLITE_IOERR_RDLOCK,
        apsw.SQLITE_IOERR_CHECKRESERVEDLOCK,
    }
)
_FULL_IO = frozenset({apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP, apsw.SQLITE_IOERR_SHMOPEN})
"""The index of the WAL could not grow: there is no room for it."""


def is_fatal(error: BaseException) -> bool:
    """Whether the file's state on the disk is unknown after this error of a write."""
    return isinstance(error, apsw.IOError) and _extended(error) not in _HARMLESS_IO | _FULL_IO


def _extended(error: apsw.Error) -> int:
    return int(getattr(error, "extendedresult", 0))


def translate(path: Path, error: BaseException) -> LogError:
    """The error that callers of the log see."""
    if isinstance(error, LogError):
        return error
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and _extended(error) in _FULL_IO):
        return LogFull(f"{path}: no room on the disk; free some, or set data_directory to a larger one")
    if isinstance(error, apsw.Error):
        return refusal(path, error)
    return LogError(f"{path}: {type(error).__name__}: {error}")


def end_process(reason: str) -> NoReturn:
    """Say why (the line is flushed at once), and end the process without running anything else."""
    LOG.error("log failed", problem=reason)
    os._exit(EXIT_IO_ERROR)


def last_words(path: Path, error: BaseException) -> str:
    """Why the process ends."""
    return (
        f"{path}: writing the log failed ({error}); what is on the disk is unknown, so this process ends (status "
        f"{EXIT_IO_ERROR}) and nothing unconfirmed is acknowledged; check the disk, then start again"
    )
