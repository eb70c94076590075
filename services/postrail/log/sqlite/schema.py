"""The file's schema, how connections to it are opened, and which files are refused.

Owns the SQL that makes the tables and the pragmas of every connection. It never reads or writes records: that is `store`
(writing), `reader` and `inspect`.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from postrail.log.interface import LogUnavailable

APPLICATION_ID = 0x504F5354
"""Marks the file as ours: "POST"."""
VERSION = 1
PAGE_BYTES = 8192
CACHE_KIB = 32 << 10
"""Pages of one group must fit, so that nothing is written before its commit."""
BUSY_TIMEOUT_MILLISECONDS = 5000

_TABLES = """
CREATE TABLE partition (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE body (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    appended_at REAL NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    body INTEGER,
    body_bytes INTEGER NOT NULL,
    traced INTEGER
) STRICT;
CREATE UNIQUE INDEX record_position ON record (partition, offset);
CREATE INDEX record_body ON record (body) WHERE body IS NOT NULL;
CREATE INDEX record_key ON record (key) WHERE traced IS NOT NULL;
CREATE TABLE progress (
    consumer_group TEXT NOT NULL,
    partition INTEGER NOT NULL,
    low INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (consumer_group, partition)
) STRICT, WITHOUT ROWID;
"""
# record.sequence is the order of all appends; a record's bytes lie in that order, which keeps inserts at the end of the table.
# record.traced is 1 for topics that are looked up by key (`events`, `dead-letters`), else NULL.
# partition.next_offset is a floor: what trimming has emptied must not be numbered again.
# progress.low is -1 for a group that has joined and never committed: it holds back trimming, and has finished nothing.


def open_writer(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open the file for writing, creating it where it does not exist.

    Raises:
        LogUnavailable: the file is not ours, newer than this version, damaged, or cannot be opened.
    """
    _make(path)
    try:
        connection = apsw.Connection(str(path), vfs=vfs, statementcachesize=200)
        connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        version = _version(connection, path)
        if version == 0:
            connection.pragma("page_size", PAGE_BYTES)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise LogUnavailable(f"{path}: this filesystem cannot hold the log: SQLite's WAL mode does not work on it")
        connection.pragma("synchronous", "full")
        connection.pragma("cache_size", -CACHE_KIB)
        connection.wal_autocheckpoint(0)
        if version == 0:
            with connection:
                connection.execute(_TABLES)
                connection.pragma("application_id", APPLICATION_ID)
                connection.pragma("user_version", VERSION)
    except apsw.Error as error:
        raise refusal(path, error) from error
    return connection


def _make(path: Path) -> None:
    """Create the file for its owner only (the WAL takes over its mode), and make its name durable."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for directory in (path.parent, path.parent.parent):
            descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise LogUnavailable(
            f"{path}: cannot be opened: {error.strerror}; check data_directory and its owner"
        ) from error


def open_reader(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open an existing file for reading only, whether a process is writing it or not.

    Raises:
        LogUnavailable: as `open_writer`, or there is no such file.
    """
    if not path.exists():
        raise LogUnavailable(f"{path}: there is no log here; check data_directory")
    name = str(path)
    try:
        try:
            connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs, statementcachesize=50)
            version = _version(connection, path)
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            if path.with_name(path.name + "-wal").exists():
                raise
            # A stopped log in a directory that we may not write to: nothing can change it while we look.
            uri = f"{path.resolve().as_uri()}?immutable=1"
            connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            version = _version(connection, path)
    except apsw.Error as error:
        raise refusal(path, error) from error
    if version == 0:
        raise LogUnavailable(f"{path}: this file is empty; the log was never started")
    connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    connection.pragma("cache_size", -8192)
    return connection


def refusal(path: Path, error: apsw.Error) -> LogUnavailable:
    """What a person is told when SQLite cannot use the file."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return LogUnavailable(
            f"{path}: the log is damaged ({error}); keep a copy of the file and its -wal, and restore it from a backup or "
            f"recover what can be read with `sqlite3 {path.name} .recover`"
        )
    return LogUnavailable(f"{path}: the log cannot be used: {error}")


def _version(connection: apsw.Connection, path: Path) -> int:
    version = int(connection.pragma("user_version"))
    application_id = int(connection.pragma("application_id"))
    if version == 0 and application_id == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        return 0
    if application_id != APPLICATION_ID:
        raise LogUnavailable(f"{path}: this database is not a Postrail log; move it away or set another data_directory")
    if version > VERSION:
        raise LogUnavailable(
            f"{path}: the log was written by a newer Postrail (version {version} of its file format; this one reads up to "
            f"{VERSION}); start the newer Postrail again, or drain the log with it first"
        )
    return version
