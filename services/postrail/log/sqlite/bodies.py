"""Bodies in memory: those that were written lately stay until newer ones need the room.

Owns the `Body` that records carry and the bound on its bytes. Reading from the file is `reader`'s; which bodies are no
longer in the file is told by `log` after trimming.
"""

from __future__ import annotations

from collections import deque
from weakref import WeakValueDictionary

from postrail.log.interface import LogError
from postrail.log.sqlite.reader import Reader


class SqliteBody:
    """A body of this log. `in_memory` is None when the bytes are in the file only; `gone` when they are not there any more."""

    __slots__ = ("__weakref__", "cache", "gone", "id", "in_memory", "size_bytes")

    def __init__(self, cache: BodyCache, body_id: int, size_bytes: int, data: bytes | None) -> None:
        self.cache = cache
        self.id = body_id
        self.size_bytes = size_bytes
        self.in_memory: bytes | None = data
        self.gone = False

    async def load(self) -> bytes:
        """The bytes. At most 256 KiB, so reading them from the file is short enough to be done in place."""
        data = self.in_memory
        return data if data is not None else self.cache.read(self)


class BodyCache:
    """All bodies that somebody holds, and the bytes of the newest of them."""

    def __init__(self, reader: Reader, limit_bytes: int) -> None:
        self._reader = reader
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._newest: deque[SqliteBody] = deque()
        self._all: WeakValueDictionary[int, SqliteBody] = WeakValueDictionary()

    def keep(self, body: SqliteBody) -> None:
        """A body that has just become durable: its bytes stay until newer ones need the room."""
        self._all[body.id] = body
        self._newest.append(body)
        self._held_bytes += body.size_bytes
        while self._held_bytes > self._limit_bytes:
            oldest = self._newest.popleft()
            self._held_bytes -= oldest.size_bytes
            oldest.in_memory = None

    def known(self, body_id: int, size_bytes: int) -> SqliteBody:
        """The body of a record that was read from the file."""
        body = self._all.get(body_id)
        if body is None:
            body = self._all[body_id] = SqliteBody(self, body_id, size_bytes, None)
        return body

    def read(self, body: SqliteBody) -> bytes:
        """The bytes from the file.

        Raises:
            LogError: they are not kept any more, or cannot be read.
        """
        data = None if body.gone else self._reader.body(body.id)
        if data is None:
            raise LogError(f"body {body.id} is not kept any more: every record with it was trimmed")
        return data

    def trimmed(self, body_ids: list[int]) -> None:
        """These are no longer in the file."""
        get = self._all.get
        for body_id in body_ids:
            body = get(body_id)
            if body is not None:
                body.gone = True
