"""What the log knows in memory of a partition, and where each consumer stands in it.

Owns the offsets (next to be given, durable, oldest kept) and the cursors. A cursor that has read all that is durable gets
new records handed over as they become so; one that is behind reads pages from the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from postrail.core.topics import DEAD_LETTERS, EVENTS, FEEDBACK
from postrail.log.interface import Record, TopicPartition
from postrail.log.sqlite.bodies import BodyCache
from postrail.log.sqlite.reader import PAGE_RECORDS, Reader

KEPT_LONGER = frozenset({EVENTS, FEEDBACK, DEAD_LETTERS})
"""Topics that hold no mail under way: kept for `keep_events_seconds`, finished or not."""
TRACED = frozenset({EVENTS, DEAD_LETTERS})
"""Topics whose records are looked up by key."""

RECORD_OVERHEAD_BYTES = 400
"""What a record in memory takes beside its value, about; the object that the value encodes takes as much again."""

BUFFER_RECORDS = 2000
"""A consumer that lets more wait in memory reads the rest from the file, and leaves the room to others."""


@dataclass(slots=True, eq=False)
class Partition:
    """`next` is given to the next record; below `durable` all is on the disk; below `first` nothing is kept any more."""

    id: int
    where: TopicPartition
    next: int = 0
    durable: int = 0
    first: int = 0
    oldest_at: float = 0.0
    """Unix time at or before which nothing was appended that is still kept; a lower bound."""
    stored: bool = False
    """Whether the file has its row."""
    traced: int | None = None
    groups: dict[str, int] = field(default_factory=dict)
    """For each group that ever joined: below which offset it has finished all. -1: it never committed."""
    cursors: list[Cursor] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Below this every group has finished; 0 when no group ever joined."""
        return max(0, min(self.groups.values(), default=0))


def _held_bytes(record: Record) -> int:
    size = len(record.value) + RECORD_OVERHEAD_BYTES
    return size if record.decoded is None else 2 * size


class HotBudget:
    """The bytes of records that wait in memory for consumers."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


@dataclass(slots=True, eq=False)
class Cursor:
    """One consumer's place in one partition. Records in `buffer` lie below `fetched`."""

    partition: Partition
    budget: HotBudget
    fetched: int
    skip: set[int]
    """Finished offsets that lie ahead."""
    on_ready: Callable[[], None]
    """Called when records may have become ready."""
    buffer: deque[Record] = field(default_factory=deque)
    paused: bool = False

    def push(self, record: Record) -> bool:
        """Take a record that has just become durable; False when this cursor is behind, or memory is short."""
        budget = self.budget
        if (
            record.offset != self.fetched
            or budget.used_bytes > budget.limit_bytes
            or len(self.buffer) >= BUFFER_RECORDS
        ):
            return False
        self.buffer.append(record)
        self.fetched += 1
        budget.used_bytes += _held_bytes(record)
        return True

    def ready(self) -> bool:
        """Whether `take` is likely to find records."""
        return not self.paused and (bool(self.buffer) or self.fetched < self.partition.durable)

    def notice(self) -> None:
        """Something of the partition became durable."""
        if self.ready():
            self.on_ready()

    def take(self, limit: int, reader: Reader, bodies: BodyCache) -> list[Record]:
        """The next records, `limit` of them at most.

        Raises:
            LogUnavailable: they cannot be read.
        """
        taken: list[Record] = []
        while len(taken) < limit and (self.buffer or self._fill(reader, bodies)):
            if len(self.buffer) <= limit - len(taken):
                taken += self.buffer
                self.buffer.clear()
            else:
                for _ in range(limit - len(taken)):
                    taken.append(self.buffer.popleft())
        self.budget.used_bytes -= sum(map(_held_bytes, taken))
        return taken

    def lag(self) -> int:
        """Records not yet taken."""
        start = max(self.fetched, self.partition.first)
        return len(self.buffer) + max(0, self.partition.durable - start - len(self.skip))

    def drop(self) -> None:
        """Forget what waits; the cursor is not used any more."""
        self.budget.used_bytes -= sum(map(_held_bytes, self.buffer))
        self.buffer.clear()
        if self in self.partition.cursors:
            self.partition.cursors.remove(self)

    def _fill(self, reader: Reader, bodies: BodyCache) -> bool:
        """Read the next page into the empty buffer; False when all that is durable has been read."""
        partition, skip = self.partition, self.skip
        topic, number = partition.where
        while self.fetched < partition.durable:
            rows = reader.page(partition.id, self.fetched, partition.durable)
            for offset, appended_at, key, value, body_id, body_bytes in rows:
                if offset in skip:
                    skip.discard(offset)
                    continue
                body = None if body_id is None else bodies.known(body_id, body_bytes)
                record = Record(topic, number, offset, key, value, body, appended_at)
                self.buffer.append(record)
                self.budget.used_bytes += _held_bytes(record)
            self.fetched = rows[-1][0] + 1 if len(rows) == PAGE_RECORDS else partition.durable
            if self.fetched >= partition.durable:
                skip.clear()
            if self.buffer:
                return True
        return False
