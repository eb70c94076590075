"""Looks at log files from another process: what is known of a message, and what waits. For the `postrail` command.

Owns read-only access to one or several workers' files, while their process writes them and when it is stopped. It never
changes a file, takes no lock, and reads in short pages so that it never holds a checkpoint back. Bodies are read on request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from postrail.log.interface import LogError, Record, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite.faults import translate
from postrail.log.sqlite.partition import TRACED
from postrail.log.sqlite.schema import open_reader

PAGE_RECORDS = 500
_COLUMNS = "p.topic, p.number, r.offset, r.key, r.value, r.body, r.body_bytes, r.appended_at"
_FROM = "FROM record r JOIN partition p ON p.id = r.partition"


class TopicState(NamedTuple):
    """One partition as the file has it. `records` counts what is kept; times are Unix seconds, None when it is empty."""

    partition: TopicPartition
    first: int
    next: int
    records: int
    oldest_at: float | None
    newest_at: float | None


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body in a file, read when asked for."""

    path: Path
    id: int
    size_bytes: int

    @property
    def in_memory(self) -> bytes | None:
        """Never at hand."""
        return None

    def read(self) -> bytes:
        """The bytes.

        Raises:
            LogError: they are not kept any more, or cannot be read.
        """
        rows = _query(self.path, "SELECT data FROM body WHERE id = ?", (self.id,))
        if not rows:
            raise LogError(f"{self.path}: body {self.id} is not kept any more")
        return bytes(rows[0][0])

    async def load(self) -> bytes:
        """As `read`."""
        return self.read()


def log_files(data_directory: Path) -> list[Path]:
    """The logs of all workers, in the workers' order; [] when nothing was ever started there."""
    found = [path for path in data_directory.glob("worker-*/log.sqlite") if path.parent.name[7:].isdecimal()]
    return sorted(found, key=lambda path: int(path.parent.name[7:]))


class View(NamedTuple):
    """One file as it was at one moment, whatever is written meanwhile: mail that moves is seen in one place, not in none."""

    path: Path
    connection: apsw.Connection


Source = Path | View
"""A file as it is at each look, or as it was at one moment."""


@contextmanager
def view(path: Path) -> Iterator[View]:
    """A file as it is now, for several looks. Keep it short: the file grows while it is open.

    Raises:
        LogUnavailable: the file cannot be read, or is not a log.
    """
    with closing(open_reader(path)) as connection:
        try:
            connection.execute("BEGIN")
        except apsw.Error as error:
            raise translate(path, error) from error
        yield View(path, connection)


def records_by_key(source: Source, topic: str, key: bytes) -> list[Record]:
    """The records of a topic with this key, oldest first. Quick for `events` and `dead-letters`, a scan for others.

    Raises:
        LogUnavailable: the file cannot be read, or is not a log.
    """
    indexed = "r.traced IS NOT NULL AND" if topic in TRACED else ""
    query = f"SELECT {_COLUMNS} {_FROM} WHERE {indexed} r.key = ? AND p.topic = ? ORDER BY r.sequence"
    return [_record(source, row) for row in _query(source, query, (key, topic))]


def records(source: Source, topic: str, *, start: int = 0) -> Iterator[Record]:
    """The records of a topic that are kept, partition by partition in offset order, each from the offset `start` on."""
    for state in topics(source):
        if state.partition.topic == topic:
            yield from _from(source, state.partition, max(start, state.first), state.next)


def pending(source: Source, topic: str, groups: Sequence[str]) -> Iterator[Record]:
    """Records of a topic that at least one of `groups` has not finished; of a group that never committed, all."""
    done = {group: progress(source, group) for group in groups}
    for state in topics(source):
        where = state.partition
        if where.topic != topic:
            continue
        finished = [done[group].get(where, Progress(0)) for group in groups]
        start = max(state.first, min((each.low for each in finished), default=0))
        for record in _from(source, where, start, state.next):
            if not all(each.includes(record.offset) for each in finished):
                yield record


def unfinished(path: Path, wanted: Callable[[str], bool]) -> Iterator[Record]:
    """Everything of the wanted topics that is not finished, as the file was at one moment.

    A record waits until every group of its topic is done with it; one of a topic without groups waits for ever.
    """
    with view(path) as now:
        readers: dict[str, set[str]] = {}
        for group, where in groups(now):
            readers.setdefault(where.topic, set()).add(group)
        for topic in dict.fromkeys(state.partition.topic for state in topics(now)):
            if wanted(topic):
                own = sorted(readers.get(topic, ()))
                yield from pending(now, topic, own) if own else records(now, topic)


def progress(source: Source, group: str) -> dict[TopicPartition, Progress]:
    """What a group has finished, for partitions on which it ever committed."""
    query = (
        "SELECT p.topic, p.number, g.low, g.metadata FROM progress g JOIN partition p ON p.id = g.partition "
        "WHERE g.consumer_group = ? AND g.low >= 0"
    )
    rows = _query(source, query, (group,))
    return {TopicPartition(topic, number): Progress.parse(low, metadata) for topic, number, low, metadata in rows}


def groups(source: Source) -> list[tuple[str, TopicPartition]]:
    """Every group, with each partition that it ever joined."""
    query = "SELECT g.consumer_group, p.topic, p.number FROM progress g JOIN partition p ON p.id = g.partition ORDER BY 1, 2, 3"
    return [(group, TopicPartition(topic, number)) for group, topic, number in _query(source, query)]


def topics(source: Source) -> list[TopicState]:
    """Every partition, by name."""
    query = (
        "SELECT p.topic, p.number, p.next_offset, s.first, s.last, s.kept, s.oldest, s.newest FROM partition p LEFT JOIN ("
        "SELECT partition, min(offset) AS first, max(offset) AS last, count(*) AS kept, min(appended_at) AS oldest, "
        "max(appended_at) AS newest FROM record GROUP BY partition) s ON s.partition = p.id ORDER BY 1, 2"
    )
    states = []
    for topic, number, floor, first, last, kept, oldest, newest in _query(source, query):
        end = floor if last is None else max(floor, last + 1)
        where = TopicPartition(topic, number)
        states.append(TopicState(where, end if first is None else first, end, kept or 0, oldest, newest))
    return states


def _from(source: Source, where: TopicPartition, first: int, end: int) -> Iterator[Record]:
    query = (
        f"SELECT {_COLUMNS} {_FROM} WHERE p.topic = ? AND p.number = ? AND r.offset >= ? AND r.offset < ? "
        f"ORDER BY r.offset LIMIT {PAGE_RECORDS}"
    )
    while rows := _query(source, query, (*where, first, end)):
        yield from (_record(source, row) for row in rows)
        first = rows[-1][2] + 1


def _record(source: Source, row: tuple[Any, ...]) -> Record:
    topic, number, offset, key, value, body_id, body_bytes, appended_at = row
    body = (
        None
        if body_id is None
        else StoredBody(source if isinstance(source, Path) else source.path, body_id, body_bytes)
    )
    return Record(topic, number, offset, key, value, body, appended_at)


def _query(source: Source, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(source, Path):
        with view(source) as now:
            return _query(now, query, arguments)
    try:
        return source.connection.execute(query, arguments).fetchall()
    except apsw.Error as error:
        raise translate(source.path, error) from error
