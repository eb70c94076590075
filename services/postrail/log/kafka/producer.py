"""Appends records: bundles what comes within a few milliseconds, and what comes while a batch is on its way.

Owns the sending and the deadlines. A record is never sent twice by this module unless the broker said that it did not store
it. Neighbours: `sessions` (aiokafka's producers), `outbox` (what waits), `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiokafka import errors

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import Append, LogError, LogUnavailable, Position
from postrail.log.kafka import faults, metrics
from postrail.log.kafka.catalogue import Catalogue
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.outbox import Call, Item, Queue
from postrail.log.kafka.records import BODY_HEADER, RECORD_OVERHEAD_BYTES, Headers, body_of, partition_of
from postrail.log.kafka.sessions import IN_FLIGHT_SECONDS, Batch, Session, Sessions
from postrail.shell import logs

LOG = logs.logger("log")

ROUND_BYTES = 2 << 20
"""All batches that are sent at a time to one broker."""
DOWN_SECONDS = 5.0
"""When no broker could be reached for so long, appends fail at once instead of waiting."""
TICK_SECONDS = 0.25
LATE_SECONDS = 1.0
_NO_HEADERS: Headers = []


class Producer:
    """Made by `KafkaLog`; `open` before use."""

    def __init__(self, config: KafkaConfig, connection: Connection, catalogue: Catalogue) -> None:
        self._config, self._connection, self._catalogue = config, connection, catalogue
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, list[Queue]] = {}
        self._dirty: dict[Queue, None] = {}
        self._busy: dict[int, int] = {}
        self._sessions = Sessions(config, connection, self._flush)
        self._flusher: asyncio.Task[None] | None = None
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked_at = self._loop.time()
        self._waiting_bytes = 0
        self._room: list[asyncio.Future[None]] = []
        self._closed = False
        self._idle: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: the brokers don't answer within the delivery timeout.
        """
        await self._sessions.open()
        self._ticked_at = self._loop.time()
        self._tick()

    def problem(self) -> str | None:
        """What is wrong now."""
        return self._sessions.trouble

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        """As `Log.append`."""
        if not appends:
            return []
        now = self._loop.time()
        down_since = self._sessions.down_since
        if down_since is not None and now - down_since > DOWN_SECONDS:
            metrics.FAILURES.labels("expired").inc()
            raise LogUnavailable(self._sessions.trouble)
        known = self._queues
        for append in appends:
            if append.topic not in known:
                await self._learn(append.topic)
        deadline = now + self._config.delivery_timeout_seconds
        call = Call(self._loop.create_future(), len(appends), deadline)
        prepared = []
        for place, append in enumerate(appends):
            queue, item = await self._prepare(call, place, append)
            if item.size_bytes > self._config.max_record_bytes:
                self._refuse(queue, item, self._config.max_record_bytes)
            else:
                prepared.append((queue, item))
        size_bytes = sum(item.size_bytes for _, item in prepared)
        if self._waiting_bytes + size_bytes > self._config.buffer_bytes:
            await self._wait_for_room(size_bytes, deadline)
        if self._closed:
            raise LogUnavailable("the log is closed")
        for queue, item in prepared:
            queue.items.append(item)
            self._dirty[queue] = None
        self._waiting_bytes += size_bytes
        if self._timer is None:
            self._timer = self._loop.call_later(self._config.linger_seconds, self._flush)
        return await call.future

    async def _learn(self, topic: str) -> None:
        await self._catalogue.ensure([topic])
        outer, count = self._catalogue.outer(topic), self._catalogue.partitions[topic]
        self._queues.setdefault(topic, [Queue(outer, number) for number in range(count)])

    async def _prepare(self, call: Call, place: int, append: Append) -> tuple[Queue, Item]:
        body = await body_of(append)
        size = len(append.key) + len(append.value) + RECORD_OVERHEAD_BYTES + (len(body) if body else 0)
        queues = self._queues[append.topic]
        headers = _NO_HEADERS if body is None else [(BODY_HEADER, body)]
        item = Item(call, place, append.key, append.value, headers, size)
        return queues[partition_of(append.key, len(queues))], item

    def _inner(self, queue: Queue) -> str:
        """The topic's name without the prefix."""
        return queue.topic[len(self._config.topic_prefix) :]

    async def _wait_for_room(self, size_bytes: int, deadline: float) -> None:
        while self._waiting_bytes and self._waiting_bytes + size_bytes > self._config.buffer_bytes and not self._closed:
            room = self._loop.create_future()
            self._room.append(room)
            try:
                await asyncio.wait_for(room, max(0.0, deadline - self._loop.time()))
            except TimeoutError as error:
                metrics.FAILURES.labels("expired").inc()
                raise LogUnavailable(f"Kafka at {self._connection.servers} is too slow: too much waits") from error

    def _freed(self, size_bytes: int) -> None:
        self._waiting_bytes -= size_bytes
        for room in self._room:
            if not room.done():
                room.set_result(None)
        self._room.clear()

    # Sending

    def _flush(self) -> None:
        """Send what waits, in a task: aiokafka may have to ask for metadata first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flusher is not None and not self._flusher.done():
            self._again = True
        elif self._sessions.current is not None and self._dirty:
            self._flusher = self._loop.create_task(self._send_all(self._sessions.current))

    async def _send_all(self, session: Session) -> None:
        cluster = session.producer.client.cluster
        sent: dict[int, int] = {}
        self._again = False
        for queue in list(self._dirty):
            if queue.in_flight or not queue.items:
                del self._dirty[queue]  # its answer makes it dirty again
                continue
            leader = cluster.leader_for_partition(queue.where)
            if leader is not None and (
                (self._busy.get(leader, 0) and leader not in sent) or sent.get(leader, 0) > ROUND_BYTES
            ):
                continue
            del self._dirty[queue]
            size_bytes = await self._send(session, queue, leader)
            if leader is not None:
                sent[leader] = sent.get(leader, 0) + size_bytes
            if session.retired:
                break
        if self._again:
            self._loop.call_soon(self._flush)

    async def _send(self, session: Session, queue: Queue, leader: int | None) -> int:
        builder = session.producer.create_batch()
        items: list[Item] = []
        while queue.items:
            item = queue.items[0]
            if item.call.future.done():  # it failed elsewhere, or its caller has left
                queue.items.popleft()
                self._freed(item.size_bytes)
                continue
            try:
                fits = builder.append(timestamp=None, key=item.key, value=item.value, headers=item.headers) is not None
            except (TypeError, ValueError, OverflowError) as error:  # this record cannot be written, whatever is tried
                queue.items.popleft()
                item.call.failed(LogError(f"a record cannot be written to {queue.topic}: {error}"))
                self._freed(item.size_bytes)
                continue
            if not fits:
                break
            items.append(queue.items.popleft())
            if queue.single:
                queue.single -= 1
                break
        if not items:
            return 0
        builder.close()
        batch = Batch(session, queue, leader, items, self._loop.time())
        queue.in_flight = True
        session.pending.add(batch)
        if leader is not None:
            self._busy[leader] = self._busy.get(leader, 0) + 1
        try:
            future = await session.producer.send_batch(builder, queue.topic, partition=queue.partition)
        except Exception as error:  # whatever it is, the batch was not sent
            future = self._loop.create_future()
            future.set_exception(error)
        batch.future = future
        future.add_done_callback(partial(self._answered, batch))
        return batch.size_bytes

    def _answered(self, batch: Batch, future: asyncio.Future[Any]) -> None:
        if batch not in batch.session.pending:
            if not future.cancelled():
                future.exception()  # given up before
            return
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            base = future.result().offset
            metrics.RECORDS.inc(len(batch.items))
            metrics.BATCHES.inc()
            metrics.APPEND_SECONDS.observe(self._loop.time() - batch.sent_at)
            self._sessions.trouble = None
            topic, partition = self._inner(batch.queue), batch.queue.partition
            for number, item in enumerate(batch.items):
                item.call.stored(item.place, Position(topic, partition, base + number))
            self._settled(batch)
            return
        self._sessions.retire(batch.session)
        if not isinstance(error, errors.MessageSizeTooLargeError):
            problem = faults.translate(self._connection.servers, self._inner(batch.queue), error)
            self._fail(batch, problem, "refused")
        elif len(batch.items) > 1:
            batch.queue.put_back(batch.items)
            batch.size_bytes = 0
        else:
            self._refuse(batch.queue, batch.items[0])
        self._settled(batch)

    def _refuse(self, queue: Queue, item: Item, our_limit_bytes: int | None = None) -> None:
        """A record is too large: for our limit, otherwise for that of the brokers."""
        problem = faults.too_large(self._inner(queue), item.size_bytes, our_limit_bytes)
        metrics.FAILURES.labels("too_large").inc()
        LOG.error("append_failed", topic=queue.topic, partition=queue.partition, problem=problem)
        item.call.refused(item.place, problem)

    def _fail(self, batch: Batch, error: LogError, reason: str) -> None:
        metrics.FAILURES.labels(reason).inc(len({item.call for item in batch.items}))
        self._sessions.trouble = str(error)
        LOG.error("append_failed", topic=batch.queue.topic, partition=batch.queue.partition, problem=str(error))
        for item in batch.items:
            item.call.failed(error)

    def _settled(self, batch: Batch) -> None:
        """A batch needs no answer any more."""
        session, queue = batch.session, batch.queue
        session.pending.discard(batch)
        queue.in_flight = False
        if batch.leader is not None:
            self._busy[batch.leader] -= 1
        self._freed(batch.size_bytes)
        if queue.items:
            self._dirty[queue] = None
        if self._dirty and (batch.leader is None or not self._busy[batch.leader]):
            self._loop.call_soon(self._flush)
        self._sessions.settled(session)
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and self._is_idle():
            self._idle.set_result(None)

    def _is_idle(self) -> bool:
        return not any(queue.in_flight or queue.items for queues in self._queues.values() for queue in queues)

    # Deadlines

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)
        metrics.WAITING_BYTES.set(self._waiting_bytes)
        now, before = self._loop.time(), self._ticked_at
        self._ticked_at = now
        if now - before > LATE_SECONDS:
            return  # this process stood still: let the answers in first that came meanwhile
        for session in self._sessions.all():
            for batch in list(session.pending):
                if batch.deadline <= now:
                    self._give_up(batch, now)
        error = LogUnavailable(
            self._sessions.trouble or f"Kafka at {self._connection.servers} did not take a record in time"
        )
        for queue in (each for queues in self._queues.values() for each in queues if each.items):
            self._dirty[queue] = None
            if not queue.in_flight and (freed := queue.expire(now, error)):
                metrics.FAILURES.labels("expired").inc()
                self._freed(freed)
        self._tell_idle()
        if self._timer is None:
            self._flush()

    def _give_up(self, batch: Batch, now: float) -> None:
        waited = now - batch.sent_at
        text = f"no acknowledgement within {waited:.0f} s for a record of {batch.queue.topic}, partition {batch.queue.partition}"
        self._sessions.retire(batch.session)
        self._fail(batch, LogUnavailable(f"Kafka at {self._connection.servers}: {text}"), "unacknowledged")
        self._settled(batch)

    async def close(self) -> None:
        """Flush what waits, as long as its deadlines allow; then disconnect."""
        self._closed = True
        self._freed(0)
        if not self._is_idle():
            self._idle = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle, self._config.delivery_timeout_seconds + IN_FLIGHT_SECONDS)
        for handle in (self._timer, self._ticker):
            if handle is not None:
                handle.cancel()
        if self._flusher is not None and not self._flusher.done():
            self._flusher.cancel()
            await asyncio.wait([self._flusher])
        await self._sessions.close()
