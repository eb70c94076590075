"""`Inspection` of the embedded log: the files of all workers, one after the other, each as it is at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import islice
from pathlib import Path

from postrail.log.inspect import Found, Wanted
from postrail.log.interface import Record
from postrail.log.sqlite import inspect


class SqliteInspection:
    """See `Inspection`. A file is opened for each look, so nothing needs to be closed."""

    place_name = "worker"
    usual_limit: int | None = None
    search_seconds: float | None = None

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    async def keyed(self, topic: str, key: bytes, since: float) -> list[Record]:
        """As `Inspection.keyed`; the file has an index, so it looks as far back as records are kept."""
        del since
        return [record for path in self._files for record in inspect.records_by_key(path, topic, key)]

    async def since(self, topic: str, since: float) -> AsyncIterator[Record]:
        """As `Inspection.since`."""
        for path in self._files:
            for record in inspect.records(path, topic):
                if record.appended_at >= since:
                    yield record

    async def count_unfinished(self, wanted: Wanted) -> int:
        """As `Inspection.count_unfinished`."""
        return sum(1 for path in self._files for _ in inspect.unfinished(path, wanted))

    async def unfinished(self, wanted: Wanted, limit: int | None) -> AsyncIterator[Found]:
        """As `Inspection.unfinished`."""
        for path in self._files:
            share = None if limit is None else -(-limit // len(self._files))
            for record in islice(inspect.unfinished(path, wanted), share):
                yield Found(path.parent.name, record)
