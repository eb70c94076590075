"""A write group: the appends and commits of many callers that share one transaction.

Owns how entries become rows: which partition, offset and body each append gets, and what is told to callers and consumers
once the group is durable. Offsets are taken when a group is staged and given back when it fails; groups never overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zlib import crc32

from postrail.log.interface import Append, Body, Commit, LogError, Position, Record, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite.bodies import BodyCache, SqliteBody
from postrail.log.sqlite.partition import TRACED, Partition
from postrail.log.sqlite.store import RecordRow, Store
from postrail.log.sqlite.trim import Trimmed


class Entry:
    """What one caller wants stored: all of it or nothing."""

    __slots__ = ("appends", "commits", "future", "joins", "positions", "size_bytes")

    def __init__(
        self,
        future: asyncio.Future[list[Position]],
        appends: Sequence[Append] = (),
        commits: Sequence[Commit] = (),
        joins: Sequence[tuple[str, str]] = (),
        positions: bool = False,
    ) -> None:
        self.future = future
        self.positions = positions
        """Whether the caller wants to know where its records lie."""
        self.appends = appends
        self.commits = commits
        self.joins = joins
        """Group and topic."""
        size = 0
        for append in appends:
            size += len(append.value)
            if isinstance(append.body, bytes):
                size += len(append.body)
        self.size_bytes = size


class Topics:
    """All partitions, by name; topics come into being when they are first named."""

    def __init__(self, store: Store, partitions_per_topic: int) -> None:
        self.by_place = store.partitions
        self.by_topic: dict[str, list[Partition]] = {}
        for partition in sorted(store.partitions.values(), key=lambda each: each.where):
            self.by_topic.setdefault(partition.where.topic, []).append(partition)
        self._next_id = store.next_partition
        self._per_topic = partitions_per_topic

    def partitions(self, topic: str) -> list[Partition]:
        """The partitions of a topic, which is made when it does not exist."""
        found = self.by_topic.get(topic)
        if found is None:
            found = self.by_topic[topic] = []
            for number in range(self._per_topic):
                traced = 1 if topic in TRACED else None
                partition = Partition(self._next_id, TopicPartition(topic, number), traced=traced)
                self._next_id += 1
                self.by_place[partition.where] = partition
                found.append(partition)
        return found

    def pick(self, topic: str, key: bytes) -> Partition:
        """The partition that a key goes to."""
        found = self.by_topic.get(topic) or self.partitions(topic)
        return found[0] if len(found) == 1 else found[crc32(key) % len(found)]


class Group:
    """One transaction, from staging to its end."""

    def __init__(self, topics: Topics, cache: BodyCache, sequence: int, next_body: int, now: float) -> None:
        self._topics = topics
        self._cache = cache
        self._now = now
        self.sequence = sequence
        self.next_body = next_body
        self.entries: list[Entry] = []
        self.trimmed: Trimmed | None = None
        self._rows: list[RecordRow] = []
        self._placed: list[tuple[Partition, SqliteBody | None, object]] = []
        self._bodies: list[SqliteBody] = []
        self._touched: dict[Partition, None] = {}
        self._joins: list[tuple[str, Partition]] = []
        self._progress: dict[tuple[str, int], Progress] = {}

    def add(self, entry: Entry) -> None:
        """Give the entry's records their places. An entry with a body that is not kept any more fails at once."""
        for append in entry.appends:
            body = append.body
            if isinstance(body, SqliteBody) and body.gone and body.in_memory is None:
                if not entry.future.done():
                    entry.future.set_exception(LogError(f"body {body.id} is not kept any more: nothing was stored"))
                return
        self.entries.append(entry)
        if entry.appends:
            self._place(entry.appends)
        for group, topic in entry.joins:
            for partition in self._topics.partitions(topic):
                self._touched[partition] = None
                if group not in partition.groups:
                    self._joins.append((group, partition))
        for commit in entry.commits:
            where = commit.partition
            partition = self._topics.partitions(where.topic)[where.partition]
            self._touched[partition] = None
            self._progress[commit.group, partition.id] = commit.progress

    def _place(self, appends: Sequence[Append]) -> None:
        rows, placed, pick, now = self._rows, self._placed, self._topics.pick, self._now
        new: dict[int, SqliteBody] = {}
        sequence = self.sequence
        for topic, key, value, content, decoded in appends:
            partition = pick(topic, key)
            offset = partition.next
            partition.next = offset + 1
            if offset == partition.durable:
                self._touched[partition] = None
            if content is None:
                body = body_id = None
                size = 0
            else:
                body = content if isinstance(content, SqliteBody) and not content.gone else self._body(content, new)
                body_id, size = body.id, body.size_bytes
            rows.append((sequence, partition.id, offset, now, key, value, body_id, size, partition.traced))
            placed.append((partition, body, decoded))
            sequence += 1
        self.sequence = sequence

    def _body(self, content: bytes | Body, new: dict[int, SqliteBody]) -> SqliteBody:
        """A new body for `content`: raw bytes, or a body that has left the file."""
        body = new.get(id(content))
        if body is None:
            data = content if isinstance(content, bytes) else content.in_memory
            assert data is not None, "bodies of other logs were loaded before"
            body = new[id(content)] = SqliteBody(self._cache, self.next_body, len(data), data)
            self.next_body += 1
            self._bodies.append(body)
        return body

    def stage(self, store: Store) -> None:
        """Write it all into the open transaction."""
        for partition in self._touched:
            if not partition.stored:
                store.add_partition(partition)
        store.insert([(body.id, body.in_memory) for body in self._bodies], self._rows)  # type: ignore[misc]
        if self._joins:
            store.join((group, partition.id) for group, partition in self._joins)
        if self._progress:
            store.set_progress(self._progress.items())

    def give_back(self) -> None:
        """The group failed: its offsets are free again."""
        for partition in self._touched:
            partition.next = partition.durable

    def publish(self, progress: dict[tuple[str, int], Progress]) -> None:
        """The group is durable: hand its records to the consumers that wait for them."""
        for body in self._bodies:
            self._cache.keep(body)
        by_id = {}
        for partition in self._touched:
            partition.stored = True
            partition.durable = partition.next
            by_id[partition.id] = partition
        for (partition, content, decoded), row in zip(self._placed, self._rows, strict=True):
            if partition.cursors:
                topic, number = partition.where
                record = Record(topic, number, row[2], row[4], row[5], content, row[3], decoded)
                for cursor in partition.cursors:
                    cursor.push(record)
        for group, partition in self._joins:
            partition.groups.setdefault(group, -1)
        for (group, partition_id), done in self._progress.items():
            progress[group, partition_id] = done
            by_id[partition_id].groups[group] = done.low
        if self.trimmed is not None:
            self.trimmed.partition.first = self.trimmed.first
            self._cache.trimmed(self.trimmed.bodies)

    def notice(self) -> None:
        """Let the consumers look that wait for these partitions."""
        for partition in self._touched:
            for cursor in partition.cursors:
                cursor.notice()

    def resolve(self) -> None:
        """Tell the callers."""
        rows, placed, start = self._rows, self._placed, 0
        for entry in self.entries:
            end = start + len(entry.appends)
            if not entry.future.done():
                entry.future.set_result(
                    [Position(*placed[index][0].where, rows[index][2]) for index in range(start, end)]
                    if entry.positions
                    else []
                )
            start = end

    def fail(self, error: LogError) -> None:
        """Tell the callers that nothing was stored."""
        for entry in self.entries:
            if not entry.future.done():
                entry.future.set_exception(type(error)(str(error)))
