"""The embedded log: group commit over one SQLite file.

Owns the order of things: callers queue entries; on the event loop's thread a group of them is staged into an open
transaction (memory only); the commit (WAL write and fsync) runs on a thread of its own, meanwhile the next group queues;
once it is durable, and never before, consumers get the records and callers their answer. Must never retry a failed write.
Neighbours: `group`, `store`, `consumer`, `trim`, `checkpoint`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

from postrail.core.log_config import LogConfig
from postrail.core.topics import ACCEPTED, FEEDBACK
from postrail.log.interface import (
    Append,
    Body,
    Commit,
    LogError,
    LogFull,
    LogUnavailable,
    Position,
    Rebalance,
    Record,
    TopicPartition,
)
from postrail.log.progress import Progress
from postrail.log.sqlite import metrics, trim
from postrail.log.sqlite.bodies import BodyCache, SqliteBody
from postrail.log.sqlite.checkpoint import Checkpointer
from postrail.log.sqlite.consumer import Membership, SqliteConsumer
from postrail.log.sqlite.faults import Fatal, end_process, is_fatal, last_words, translate
from postrail.log.sqlite.group import Entry, Group, Topics
from postrail.log.sqlite.lock import FileLock
from postrail.log.sqlite.pace import Pace
from postrail.log.sqlite.partition import Cursor, HotBudget
from postrail.log.sqlite.reader import Reader
from postrail.log.sqlite.room import Room
from postrail.log.sqlite.runner import Runner
from postrail.log.sqlite.store import Store

GROUP_RECORDS = 500
GROUP_BYTES = 4 << 20
TICK_SECONDS = 1.0
_OUTSIDE = (f"{ACCEPTED}.", FEEDBACK)
"""Topics that mail from outside enters by: refused first when room is short."""


def open_log(
    path: Path,
    config: LogConfig,
    *,
    clock: Callable[[], float] = time.time,
    partitions: int = 1,
    fatal: Fatal = end_process,
    vfs: str | None = None,
) -> SqliteLog:
    """Open the log at `path` for this process alone, creating file and directory. Needs a running event loop.

    Args:
        clock: Unix time in seconds.
        partitions: how many each topic gets that does not exist yet.
        fatal: called when a write or an fsync failed; must not return in production.
        vfs: the name of the SQLite VFS to use, for tests.
    Raises:
        LogUnavailable: another process has it, or the file cannot be used; the message says why.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        store = Store(path, vfs)
        reader = Reader(path, vfs)
    except BaseException:
        lock.release()
        raise
    return SqliteLog(path, config, clock, lock, store, reader, partitions, fatal, vfs)


class SqliteLog:
    """Made by `open_log`. All methods are for the event loop's thread."""

    def __init__(
        self,
        path: Path,
        config: LogConfig,
        clock: Callable[[], float],
        lock: FileLock,
        store: Store,
        reader: Reader,
        partitions: int,
        fatal: Fatal,
        vfs: str | None,
    ) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self._config, self._clock, self._lock, self._fatal = config, clock, lock, fatal
        self._store, self._reader = store, reader
        self._cache = BodyCache(reader, config.hot_bytes * 3 // 4)
        self._hot = HotBudget(config.hot_bytes // 4)
        self._topics = Topics(store, partitions)
        self._progress = store.progress
        self._sequence, self._next_body = store.next_sequence, store.next_body
        self._room = Room(path, config)
        self._trimmer = trim.Trimmer()
        self._memberships: dict[str, Membership] = {}
        self._consumers: list[SqliteConsumer] = []
        self._queue: deque[Entry] = deque()
        self._group: Group | None = None
        self._pace = Pace(self.loop, self._start)
        self._closed: str | None = None
        self._idle: asyncio.Future[None] | None = None
        self._committer = Runner(self.loop, "log-commit")
        self._checkpointer = Checkpointer(path, vfs, store, self.loop)
        self._ticker = self.loop.call_soon(self._tick)

    @property
    def is_atomic(self) -> bool:
        """As `Log.is_atomic`: one SQLite transaction holds appends and commits."""
        return True

    @property
    def shares_bodies(self) -> bool:
        """As `Log.shares_bodies`: records refer to their body's row."""
        return True

    def problem(self) -> str | None:
        """As `Log.problem`."""
        return self._closed

    # Callers

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        """As `Log.append`."""
        self.check_open()
        for append in appends:
            if append.topic.startswith(_OUTSIDE):
                self._room.check(self.loop.time())
                break
        return await self._enter(await self._own(appends), positions=True)

    async def transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        """As `Log.transact`."""
        self.check_open()
        await self._enter(await self._own(appends), commits)

    async def _own(self, appends: Sequence[Append]) -> Sequence[Append]:
        """The appends, with the bytes of those bodies that lie in another log."""
        if all(map(self._is_own, appends)):
            return appends
        return [
            each if self._is_own(each) else each._replace(body=await cast("Body", each.body).load()) for each in appends
        ]

    def _is_own(self, append: Append) -> bool:
        body = append.body
        return body is None or isinstance(body, bytes) or (isinstance(body, SqliteBody) and body.cache is self._cache)

    def _enter(
        self,
        appends: Sequence[Append],
        commits: Sequence[Commit] = (),
        joins: Sequence[tuple[str, str]] = (),
        *,
        positions: bool = False,
    ) -> asyncio.Future[list[Position]]:
        self.check_open()
        future: asyncio.Future[list[Position]] = self.loop.create_future()
        self._queue.append(Entry(future, appends, commits, joins, positions))
        if self._group is None:
            self._pace.plan(len(self._queue))
        return future

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> SqliteConsumer:
        """As `Log.consumer`."""
        self.check_open()
        await self._enter((), (), [(group, topic) for topic in topics])
        membership = self._memberships.setdefault(group, Membership(self, group))
        consumer = SqliteConsumer(self, membership, topics, on_assigned, on_revoked)
        self._consumers.append(consumer)
        await membership.join(consumer)
        return consumer

    def topic_names(self) -> Collection[str]:
        """As `Log.topic_names`."""
        return self._topics.by_topic.keys()

    async def committed(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, Progress]:
        """As `Log.committed`."""
        self.check_open()
        found = {}
        for topic in topics:
            for partition in self._topics.by_topic.get(topic, ()):
                progress = self._progress.get((group, partition.id))
                if progress is not None:
                    found[partition.where] = progress
        return found

    async def tail(self, topic: str, partition: int, *, newest: int, since: int | None = None) -> list[Record]:
        """As `Log.tail`."""
        self.check_open()
        place = self._topics.by_place.get(TopicPartition(topic, partition))
        if place is None:
            return []
        first = place.durable - newest if since is None else min(since, place.durable - newest)
        rows = self._reader.page(place.id, max(first, place.first), place.durable, -1)
        return [
            Record(topic, partition, offset, key, value, self._body(body, size), appended_at)
            for offset, appended_at, key, value, body, size in rows
        ]

    def _body(self, body_id: int | None, size_bytes: int) -> SqliteBody | None:
        return None if body_id is None else self._cache.known(body_id, size_bytes)

    # Consumers

    def check_open(self) -> None:
        """Raises LogUnavailable when the log is closed, or its file cannot be trusted any more."""
        if self._closed is not None:
            raise LogUnavailable(self._closed)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic."""
        return [partition.where for partition in self._topics.partitions(topic)]

    def cursor(self, group: str, where: TopicPartition, on_ready: Callable[[], None]) -> Cursor:
        """A place in a partition, at what the group has finished; `on_ready` is called when there may be more to take."""
        partition = self._topics.by_place[where]
        progress = self._progress.get((group, partition.id), Progress(0))
        cursor = Cursor(partition, self._hot, max(progress.low, partition.first), set(progress.above), on_ready)
        partition.cursors.append(cursor)
        return cursor

    def take(self, cursor: Cursor, limit: int) -> list[Record]:
        """The next records at a place."""
        return cursor.take(limit, self._reader, self._cache)

    def left(self, consumer: SqliteConsumer) -> None:
        """A consumer is closed."""
        self._consumers.remove(consumer)

    # Groups

    def _start(self) -> None:
        """Stage the next group and hand its commit to the thread."""
        group = Group(self._topics, self._cache, self._sequence, self._next_body, self._clock())
        records = size_bytes = 0
        queue = self._queue
        while queue and records < GROUP_RECORDS and size_bytes < GROUP_BYTES:
            entry = queue.popleft()
            group.add(entry)
            records += len(entry.appends) + 1
            size_bytes += entry.size_bytes
        self._group = group
        self._pace.started(records)
        try:
            self._store.begin()
            group.stage(self._store)
            group.trimmed = self._trimmer.slice(self._store)
        except Exception as error:  # classified there
            self._failed(error)
            return
        self._committer.submit(self._store.commit, self._committed)

    def _committed(self, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        group = self._group
        assert group is not None
        metrics.COMMIT_SECONDS.observe(self._pace.seconds())
        metrics.RECORDS.inc(group.sequence - self._sequence)
        self._sequence, self._next_body = group.sequence, group.next_body
        group.publish(self._progress)
        group.resolve()
        group.notice()
        if self._checkpointer.finish_due():
            self._committer.submit(self._store.checkpoint, self._checkpointed)
        else:
            self._next()

    def _checkpointed(self, error: BaseException | None) -> None:
        if error is not None and is_fatal(error):
            self._end(error)
            return
        self._checkpointer.finished()
        self._next()

    def _next(self) -> None:
        """The group is over: start the next one when there is work."""
        self._group = None
        self._checkpointer.look(self._closed is None, self._background_failed)
        if self._queue or (self._trimmer.jobs and self._closed is None):
            self._pace.plan(len(self._queue))
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _failed(self, error: BaseException) -> None:
        group = self._group
        assert group is not None
        if is_fatal(error):
            self._end(error)
            return
        self._trimmer.jobs.clear()
        group.give_back()
        translated = translate(self.path, error)
        metrics.FAILURES.labels("full" if isinstance(translated, LogFull) else "unavailable").inc()
        try:
            self._store.rollback()
        except Exception as second:  # a rollback that fails leaves the file's state unknown
            self._end(second)
            return
        group.fail(translated)
        self._next()

    def _background_failed(self, error: BaseException) -> None:
        if is_fatal(error):
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """A write failed for good: the process ends. What follows `fatal` is for tests, where it returns."""
        reason = last_words(self.path, error)
        self._closed = reason
        self._fatal(reason)
        self._pace.cancel()
        if self._group is not None:
            self._group.fail(LogUnavailable(reason))
            self._group = None
        while self._queue:
            entry = self._queue.popleft()
            if not entry.future.done():
                entry.future.set_exception(LogUnavailable(reason))
        for consumer in self._consumers:
            consumer.wake()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _tick(self) -> None:
        """Once a second: what may be trimmed, and how much there is."""
        self._ticker = self.loop.call_later(TICK_SECONDS, self._tick)
        if self._closed is not None:
            return
        try:
            self._room.used_bytes = self._reader.used_bytes()
        except LogError:
            return  # the next reader or writer is told
        metrics.USED_BYTES.set(self._room.used_bytes)
        metrics.WAL_BYTES.set(self._checkpointer.waiting_bytes)
        if not self._trimmer.jobs:
            self._trimmer.jobs.extend(trim.plan(self._topics.by_place.values(), self._config, self._clock()))
        if self._trimmer.jobs and self._group is None:
            self._pace.plan(len(self._queue))

    async def trim(self) -> None:
        """Delete now what may go, and return when it is gone; without this it happens by itself within seconds."""
        while True:
            self.check_open()
            self._trimmer.jobs.clear()
            self._trimmer.jobs.extend(trim.plan(self._topics.by_place.values(), self._config, self._clock()))
            if not self._trimmer.jobs:
                return
            await self._enter(())

    async def close(self) -> None:
        """Flush what waits, then release the file. A second call does nothing."""
        if self._closed is None:
            self._closed = f"{self.path}: the log is closed"
        elif self._idle is not None or self._lock.released:
            return
        for consumer in self._consumers:
            consumer.wake()
        self._ticker.cancel()
        while self._queue or self._group is not None:
            self._idle = self.loop.create_future()
            await self._idle
        self._pace.cancel()
        await self._checkpointer.close()
        try:
            await self._committer.run(lambda: self._store.checkpoint(truncate=True))
        except Exception as error:  # the WAL stays and is read at the next start
            if is_fatal(error):
                self._end(error)
        self._committer.stop()
        self._reader.close()
        self._store.close()
        self._lock.release()
