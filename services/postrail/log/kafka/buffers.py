"""Records of one assigned partition that were fetched and not yet taken. Pure bookkeeping.

Owns the position, the finished offsets that are passed over, and the partition's lag. Fetching is `consumer`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.interface import Record, TopicPartition
from postrail.log.kafka.records import FetchedRecord, decode, size_of
from postrail.log.progress import Progress


class Buffer:
    """`held`: nothing more is fetched for now; `paused`: nothing is taken, because the service said so."""

    __slots__ = ("end", "held", "next", "outer", "paused", "records", "size_bytes", "skip", "where")

    def __init__(self, where: TopicPartition, outer: KafkaPartition) -> None:
        self.where = where
        self.outer = outer
        self.records: deque[FetchedRecord] = deque()
        self.size_bytes = 0
        self.next = 0
        """The offset after the last one that was fetched."""
        self.end = 0
        """The partition's end when it was assigned."""
        self.skip: set[int] = set()
        self.held = False
        self.paused = False

    def start(self, progress: Progress, first: int, end: int) -> None:
        """Where reading starts: what the group has finished; the partition holds offsets `first` to `end`."""
        self.next = max(self.next, progress.low, first)
        self.skip = {offset for offset in progress.above if offset >= self.next or self.records}
        self.end = end

    def push(self, records: Sequence[FetchedRecord]) -> bool:
        """Take what was fetched; False when it lies before what was fetched already: the topic is another one by now."""
        if records[0].offset < self.next:
            return False
        self.records.extend(records)
        self.next = records[-1].offset + 1
        self.size_bytes += sum(map(size_of, records))
        return True

    def clear(self, next_offset: int) -> None:
        """Forget what was fetched, and go on at an offset."""
        self.records.clear()
        self.size_bytes = 0
        self.skip.clear()
        self.next = next_offset

    def take(self, limit: int) -> list[Record]:
        """The next records, `limit` of them at most."""
        taken: list[Record] = []
        records, skip, topic = self.records, self.skip, self.where.topic
        while records and len(taken) < limit:
            record = records.popleft()
            self.size_bytes -= size_of(record)
            if skip and record.offset in skip:
                skip.discard(record.offset)
                continue
            taken.append(decode(topic, record))
        return taken

    def lag(self, highwater: int) -> int:
        """Records that were not taken, the partition ending at `highwater` as far as is known."""
        ahead = max(0, max(self.end, highwater) - self.next)
        return max(0, len(self.records) + ahead - len(self.skip))
