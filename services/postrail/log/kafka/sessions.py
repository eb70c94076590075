"""aiokafka's producers, and the batches they carry: the one that is used, and those that are given up.

Owns their replacement. An idempotent producer of aiokafka that failed a batch has a gap in its numbers and is refused from
then on, and one whose broker does not answer tries for ever; so a producer that failed, or did not answer in time, gets
nothing new and is stopped without what it still holds, and another one takes its place. Neighbour: `producer`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer, codec

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import LogUnavailable
from postrail.log.kafka import faults, metrics
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.outbox import Item, Queue

BATCH_BYTES = 512 << 10
"""One batch, uncompressed: compressing it stops the event loop for a millisecond or two."""
ZSTD_LEVEL = 1
"""Half the CPU of aiokafka's 3 for a tenth more bytes; it has no setting for it."""
REQUEST_TIMEOUT_SECONDS = 10.0
IN_FLIGHT_SECONDS = 5.0
"""A batch has at least so long for its answer, however long its records waited before."""
RECONNECT_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
CLOSE_SECONDS = 5.0
TROUBLE_SECONDS = 30.0
"""So long a failure counts as a problem, when nothing was tried since: a service that takes no work cannot try."""


class Session:
    """One of aiokafka's producers. `pending`: the batches that wait for its answer."""

    __slots__ = ("pending", "producer", "retired")

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.pending: set[Batch] = set()
        self.retired = False


class Batch:
    """Records of one partition on their way."""

    __slots__ = ("deadline", "future", "items", "leader", "queue", "sent_at", "session", "size_bytes")

    def __init__(self, session: Session, queue: Queue, leader: int | None, items: list[Item], sent_at: float) -> None:
        self.session, self.queue, self.leader, self.items = session, queue, leader, items
        self.sent_at = sent_at
        self.deadline = max(sent_at + IN_FLIGHT_SECONDS, items[0].call.deadline)
        self.size_bytes = sum(item.size_bytes for item in items)
        self.future: asyncio.Future[Any] | None = None


class Sessions:
    """`ready` is called whenever there is a new one to use.

    Attributes:
        current: the one to use; None while no broker can be reached.
        down_since: the event loop's time since which none could be; None when one can.
    """

    def __init__(self, config: KafkaConfig, connection: Connection, ready: Callable[[], None]) -> None:
        self._config, self._connection, self._ready = config, connection, ready
        self._loop = asyncio.get_running_loop()
        self.current: Session | None = None
        self.down_since: float | None = None
        self._retired: set[Session] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        self._trouble: str | None = None
        self._trouble_at = 0.0
        self._closed = False
        codec.zstd_encode.__defaults__ = (ZSTD_LEVEL,)

    async def open(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: the brokers don't answer within the delivery timeout.
        """
        task = self._connecting = self._reconnect()
        done, _ = await asyncio.wait([task], timeout=self._config.delivery_timeout_seconds)
        if not done:
            task.cancel()
            raise LogUnavailable(self._trouble or str(faults.unreachable(self._connection.servers, "no answer")))

    @property
    def trouble(self) -> str | None:
        """What is wrong now, as far as was seen lately."""
        recent = self.current is None or self._loop.time() - self._trouble_at < TROUBLE_SECONDS
        return self._trouble if recent else None

    @trouble.setter
    def trouble(self, text: str | None) -> None:
        self._trouble = text
        self._trouble_at = self._loop.time()

    def all(self) -> list[Session]:
        """Those that may still answer."""
        return [*self._retired, *([self.current] if self.current is not None else ())]

    def retire(self, session: Session) -> None:
        """Give this one nothing more, and get another."""
        if session.retired:
            return
        session.retired = True
        self._retired.add(session)
        metrics.REPLACEMENTS.inc()
        if self.current is session:
            self.current = None
            if not self._closed:
                self._connecting = self._reconnect()

    def settled(self, session: Session) -> None:
        """A batch of this one is answered, or given up: stop it when it was the last of a retired one."""
        if session in self._retired and not session.pending:
            self._retired.discard(session)
            task = self._loop.create_task(_stop(session.producer))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    def _reconnect(self) -> asyncio.Task[None]:
        return self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        attempt = 0
        config = self._config
        while not self._closed:
            producer = AIOKafkaProducer(
                **self._connection.options("producer", min(REQUEST_TIMEOUT_SECONDS, config.delivery_timeout_seconds)),
                enable_idempotence=True,
                acks="all",
                compression_type=None if config.compression == "none" else config.compression,
                max_batch_size=BATCH_BYTES,
                max_request_size=config.max_record_bytes + BATCH_BYTES,
                linger_ms=0,
            )
            try:
                await asyncio.wait_for(producer.start(), config.delivery_timeout_seconds)
            except asyncio.CancelledError:
                await _stop(producer)
                raise
            except Exception as error:  # all of them mean: not now
                self.trouble = str(faults.unreachable(self._connection.servers, error))
                self.down_since = self.down_since or self._loop.time()
                await _stop(producer)
                await asyncio.sleep(RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)])
                attempt += 1
                continue
            self.current = Session(producer)
            self.down_since = None
            if attempt:
                self.trouble = None
            self._ready()
            return

    async def close(self) -> None:
        """Stop all of them, without what they still hold."""
        self._closed = True
        connecting, sessions = self._connecting, self.all()
        self.current = None
        if connecting is not None and not connecting.done():
            connecting.cancel()
            await asyncio.wait([connecting])
        await asyncio.gather(*(_stop(session.producer) for session in sessions))
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=CLOSE_SECONDS)


async def _stop(producer: AIOKafkaProducer) -> None:
    """End a producer without sending what it still holds: `AIOKafkaProducer.stop` would try that for ever."""
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(producer.client.close(), CLOSE_SECONDS)
    if sender is not None:
        done, _ = await asyncio.wait([sender], timeout=1.0)
        if not done:  # it waits for a request or for metadata that never come
            sender.cancel()
            await asyncio.wait([sender], timeout=1.0)
        if sender.done() and not sender.cancelled():
            sender.exception()
