"""The writing connection: what is staged into the open transaction, and what the file holds when the log starts.

Owns that connection and all SQL that changes the file. Staging runs on the event loop's thread, `commit` on the committer's;
the log sees to it that they never overlap. It takes no decisions and never retries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from postrail.log.interface import TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite.partition import TRACED, Partition
from postrail.log.sqlite.schema import open_writer

RecordRow = tuple[int, int, int, float, bytes, bytes, int | None, int, int | None]
"""sequence, partition id, offset, appended_at, key, value, body id, body bytes, traced."""

_RECORD = "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BODY = "INSERT INTO body VALUES (?, ?)"
_PROGRESS = "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?)"
_JOINED = "INSERT OR IGNORE INTO progress VALUES (?, ?, -1, '')"
_OLDEST = (
    "SELECT offset, appended_at, body FROM record "
    "WHERE partition = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?"
)
_TRIM = "DELETE FROM record WHERE partition = ? AND offset >= ? AND offset <= ?"
_TRIM_BODY = "DELETE FROM body WHERE id = ? AND NOT EXISTS (SELECT 1 FROM record WHERE body = body.id) RETURNING id"
_NEXT = "UPDATE partition SET next_offset = ? WHERE id = ?"


class Store:
    """One file, opened for writing.

    Attributes:
        partitions: as the file has them.
        progress: what each group has finished of each partition (by its id), where it ever committed.
        next_sequence, next_body: the numbers that the next record and body get.
    """

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._connection = open_writer(path, vfs)
        self.partitions: dict[TopicPartition, Partition] = {}
        self.progress: dict[tuple[str, int], Progress] = {}
        self._load()

    def _load(self) -> None:
        by_id: dict[int, Partition] = {}
        for partition_id, topic, number, floor in self._all("SELECT id, topic, number, next_offset FROM partition"):
            newest = self._one("SELECT max(offset) FROM record WHERE partition = ?", partition_id)
            oldest = self._one("SELECT min(offset) FROM record WHERE partition = ?", partition_id)
            next_offset = floor if newest is None else max(floor, newest + 1)
            partition = Partition(
                id=partition_id,
                where=TopicPartition(topic, number),
                next=next_offset,
                durable=next_offset,
                first=next_offset if oldest is None else oldest,
                stored=True,
                traced=1 if topic in TRACED else None,
            )
            by_id[partition_id] = self.partitions[partition.where] = partition
        for group, partition_id, low, metadata in self._all("SELECT * FROM progress"):
            by_id[partition_id].groups[group] = low
            if low >= 0:
                self.progress[group, partition_id] = Progress.parse(low, metadata)
        self.next_sequence = (self._one("SELECT max(sequence) FROM record") or 0) + 1
        self.next_body = (self._one("SELECT max(id) FROM body") or 0) + 1
        self.next_partition = (self._one("SELECT max(id) FROM partition") or 0) + 1

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def _one(self, query: str, *arguments: int) -> int | None:
        row: Any = self._connection.execute(query, arguments).fetchone()
        return None if row is None else row[0]

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def insert(self, bodies: Sequence[tuple[int, bytes]], records: Sequence[RecordRow]) -> None:
        """Add new bodies, and records that refer to them or to older ones."""
        if bodies:
            self._connection.executemany(_BODY, bodies)
        if records:
            self._connection.executemany(_RECORD, records)

    def add_partition(self, partition: Partition) -> None:
        topic, number = partition.where
        self._connection.execute("INSERT INTO partition VALUES (?, ?, ?, 0)", (partition.id, topic, number))

    def join(self, groups: Iterable[tuple[str, int]]) -> None:
        """Remember that these groups read these partitions (ids), so that nothing is trimmed before they finished it."""
        self._connection.executemany(_JOINED, groups)

    def set_progress(self, commits: Iterable[tuple[tuple[str, int], Progress]]) -> None:
        """Set what groups have finished of partitions (ids)."""
        rows = [(group, partition, done.low, done.metadata()) for (group, partition), done in commits]
        self._connection.executemany(_PROGRESS, rows)

    def oldest(self, partition: Partition, end: int, limit: int) -> list[tuple[int, float, int | None]]:
        """Offset, appended_at and body id of the oldest records below `end`, in order."""
        rows = self._connection.execute(_OLDEST, (partition.id, partition.first, end, limit)).fetchall()
        return cast("list[tuple[int, float, int | None]]", rows)

    def trim(self, partition: Partition, last: int, bodies: Iterable[int]) -> list[int]:
        """Delete records up to and with `last`, then those of `bodies` (ids) that no record refers to any more; these
        are returned."""
        self._connection.execute(_TRIM, (partition.id, partition.first, last))
        self._connection.execute(_NEXT, (partition.next, partition.id))
        deleted = self._connection.executemany(_TRIM_BODY, [(body,) for body in bodies])
        return [cast("int", row[0]) for row in deleted]

    def commit(self) -> None:
        """Make the transaction durable: the WAL is written and synced when this returns."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the open transaction, where SQLite has not done so by itself."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def pages_written(self) -> int:
        """Pages that went into the WAL since this was opened. Unlike `wal_frames` it asks no lock and no file."""
        return self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]

    def wal_frames(self) -> tuple[int, int]:
        """Pages in the WAL, and how many of them are in the main file already."""
        return self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """Copy the WAL into the main file; returns as `wal_frames`."""
        return self._connection.wal_checkpoint(
            mode=apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        )

    def close(self) -> None:
        self._connection.close()
