"""Reads records and bodies through a read-only connection, in short transactions that never hold a checkpoint back.

Owns that connection. It is used on the event loop's thread only; a page is bounded so that a read is short.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import apsw

from postrail.log.interface import LogUnavailable
from postrail.log.sqlite.faults import translate
from postrail.log.sqlite.schema import open_reader

Row = tuple[int, float, bytes, bytes, int | None, int]
"""offset, appended_at, key, value, body id, body bytes."""

PAGE_RECORDS = 256

_PAGE = (
    "SELECT offset, appended_at, key, value, body, body_bytes FROM record "
    "WHERE partition = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?"
)


class Reader:
    """The log's own read-only connection."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        self._path = path
        self._connection = open_reader(path, vfs)

    def page(self, partition: int, first: int, end: int, limit: int = PAGE_RECORDS) -> list[Row]:
        """Records of a partition with `first` <= offset < `end`, in order, `limit` of them at most.

        Raises:
            LogUnavailable: they cannot be read.
        """
        try:
            return cast("list[Row]", self._connection.execute(_PAGE, (partition, first, end, limit)).fetchall())
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def body(self, body_id: int) -> bytes | None:
        """A body's bytes; None when the file does not hold it.

        Raises:
            LogUnavailable: it cannot be read.
        """
        try:
            row = self._connection.execute("SELECT data FROM body WHERE id = ?", (body_id,)).fetchone()
        except apsw.Error as error:
            raise self._unreadable(error) from error
        return None if row is None else cast("bytes", row[0])

    def used_bytes(self) -> int:
        """The size of what the file holds; freed pages, which will be used again, are not counted."""
        try:
            pages = int(self._connection.pragma("page_count")) - int(self._connection.pragma("freelist_count"))
            return pages * int(self._connection.pragma("page_size"))
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def close(self) -> None:
        self._connection.close()

    def _unreadable(self, error: apsw.Error) -> LogUnavailable:
        translated = translate(self._path, error)
        return translated if isinstance(translated, LogUnavailable) else LogUnavailable(str(translated))
