"""One member of a group as services see it: polls, pauses, lag, lease, and what happens when partitions change hands.

Owns the order of things: what was revoked is handed out no more, then the service finishes with it, then its commits are
stored, then the group goes on; what was assigned is handed out when the service has heard of it. A background task always
fetches; processing never holds it up. Neighbours: `member`, `commits`, `prefetch`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import KafkaConfig
from postrail.log.interface import LogUnavailable, Rebalance, Record, TopicPartition
from postrail.log.kafka import faults, metrics
from postrail.log.kafka.catalogue import Catalogue, parse_progress
from postrail.log.kafka.commits import Commits
from postrail.log.kafka.connection import Connection
from postrail.log.kafka.member import Member
from postrail.log.kafka.pace import Pace
from postrail.log.kafka.prefetch import Prefetch
from postrail.log.kafka.records import FetchedRecord
from postrail.log.progress import Progress
from postrail.shell import logs

LOG = logs.logger("log")

OFFSETS_TIMEOUT_MILLISECONDS = 10_000
RETRY_SECONDS = 0.5
TROUBLE_SECONDS = 10.0
"""So long a failure counts as a problem."""
REFRESH_SECONDS = 5.0


class KafkaConsumer:
    """One member of a group. Made by `KafkaLog.consumer`; `start` before use."""

    def __init__(
        self,
        config: KafkaConfig,
        connection: Connection,
        catalogue: Catalogue,
        topics: Sequence[str],
        group: str,
        instance: str | None,
        on_assigned: Rebalance | None,
        on_revoked: Rebalance | None,
        on_closed: Callable[[KafkaConsumer], None],
    ) -> None:
        self._config, self._servers, self._catalogue = config, connection.servers, catalogue
        self.group = group
        self.topics = tuple(dict.fromkeys(topics))
        self._on_assigned, self._on_revoked, self._on_closed = on_assigned, on_revoked, on_closed
        self._loop = asyncio.get_running_loop()
        self._inner = {catalogue.outer(topic): topic for topic in self.topics}
        self.member = Member(config, connection, catalogue.outer(group), tuple(self._inner), instance)
        self._ahead = Prefetch(self.topics, self._inner, config.fetch_bytes, self.member.hold, self.member.release)
        self._pace = Pace(config.pace_seconds, time.monotonic())
        self._owned: frozenset[TopicPartition] = frozenset()
        self._waiter: asyncio.Future[None] | None = None
        self._first = self._loop.create_future()
        self._pump_task: asyncio.Task[None] | None = None
        self._commits: Commits | None = None
        self._trouble: str | None = None
        self._failed_at = -math.inf
        self._closed: str | None = None
        self._changing = asyncio.Lock()
        self._refreshed_at = time.monotonic()

    async def start(self) -> None:
        """Join, and return when partitions were assigned for the first time and `on_assigned` has run.

        Raises:
            LogUnavailable: no broker answers, or the group may not be joined.
        """
        try:
            await self.member.start(_Listener(self))
        except (errors.KafkaError, OSError, TimeoutError) as error:
            await self.member.stop()
            raise faults.unreachable(self._servers, error) from error
        self._commits = Commits(
            self.group, self.member.coordinator, self._catalogue.outer, lambda: self._owned, self._config.commit_seconds
        )
        self._pump_task = self._loop.create_task(self._pump())
        try:
            await self._first
        except BaseException:
            await self.close()
            raise

    # Services

    @property
    def assigned(self) -> Sequence[TopicPartition]:
        """The partitions that this member reads now."""
        return self._ahead.open

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """As `Consumer.poll`."""
        deadline = self._loop.time() + timeout_seconds
        while True:
            if self._closed is not None:
                raise LogUnavailable(self._closed)
            records = self._ahead.take(max_records) if self.lease_seconds() > 0 else []  # stale: others may have them
            remaining = deadline - self._loop.time()
            if records or remaining <= 0:
                return records
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(remaining, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As `Consumer.pause`."""
        self._ahead.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As `Consumer.resume`."""
        self._ahead.resume(partitions)
        self._wake()

    def owns(self, where: TopicPartition) -> bool:
        """Whether commits for this partition are this member's."""
        return where in self._owned

    def lag(self) -> int:
        """As `Consumer.lag`, as of the last fetch of each partition."""
        return self._ahead.lag(self.member.highwater)

    def lease_seconds(self) -> float:
        """As `Consumer.lease_seconds`."""
        return self.member.coordinator.lease_seconds()

    def dead(self) -> str | None:
        """What can never work again; None when nothing."""
        if self._closed is not None or self._pump_task is None:
            return None
        return self.member.dead() or ("the fetching task has ended" if self._pump_task.done() else None)

    def stuck(self) -> str | None:
        """What has stopped working; None when all works."""
        return self.member.stuck() if self._closed is None and self._pump_task is not None else None

    def problem(self) -> str | None:
        """What is wrong now."""
        if self._trouble is None and self._commits is not None and self._commits.failing is not None:
            return self._commits.failing
        if self._trouble is None and self._owned and self.lease_seconds() <= 0:
            return f"the coordinator of the group {self.group} is not heard of"
        return self._trouble

    async def commit(self, commits: Mapping[TopicPartition, Progress]) -> None:
        """Store what is finished, soon; what this member does not own is dropped."""
        if self._commits is not None:
            await self._commits.commit(commits)

    async def flush(self) -> None:
        """Return when what is finished is stored, or could not be stored for now."""
        if self._commits is not None:
            await self._commits.flush()

    async def close(self, why: str = "this consumer has left its group", *, call_back: bool = True) -> None:
        """As `Consumer.close`; `call_back`: whether `on_revoked` runs."""
        if self._closed is not None:
            return
        if not call_back:
            self._on_revoked = None
        async with self._changing:
            await self._let_go()
            self._closed = why
        self._wake()
        if self._pump_task is not None:
            self._pump_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump_task
        if self._commits is not None:
            await self._commits.close()
        await self.member.stop()
        self._on_closed(self)

    # Fetching

    async def _pump(self) -> None:
        """Always fetch, whatever the service does."""
        leased = True
        while True:
            failed: BaseException | None = None
            found: Mapping[KafkaPartition, Sequence[FetchedRecord]] = {}
            try:
                found, failed = await self.member.fetched()
            except (errors.KafkaError, OSError) as error:
                failed = error
            if found:
                self._push(found)
            if found or failed is not None:
                self.member.fetcher.go_on(self._pause_seconds(found))
            if found or not leased:
                self._wake()
            leased = self.lease_seconds() > 0
            if failed is not None:
                self._failed(failed)
                await asyncio.sleep(RETRY_SECONDS)
            elif time.monotonic() - self._failed_at > TROUBLE_SECONDS:
                self._trouble = None
            if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
                await self._refresh_ends()

    def _pause_seconds(self, found: Mapping[KafkaPartition, Sequence[FetchedRecord]]) -> float:
        if not found:
            return 0.0
        is_behind = self._ahead.is_behind(self.member.highwater)
        return self._pace.pause_seconds(time.monotonic(), sum(map(len, found.values())), is_behind=is_behind)

    def _failed(self, error: BaseException) -> None:
        self._failed_at = time.monotonic()
        self._trouble = f"Kafka at {self._servers}, group {self.group}: {type(error).__name__}: {error}"
        LOG.error("fetch_failed", group=self.group, problem=self._trouble)
        if not self._first.done() and isinstance(error, faults.REFUSED):
            self._first.set_exception(LogUnavailable(self._trouble))

    def _push(self, found: Mapping[KafkaPartition, Sequence[FetchedRecord]]) -> None:
        for where in self._ahead.push(found):
            LOG.error("offsets_went_back", topic=where.topic, partition=where.partition, advice="was it made anew?")
            self.member.coordinator.request_rejoin()

    def fetched_bytes(self) -> int:
        """What waits to be taken."""
        return self._ahead.size_bytes

    async def _refresh_ends(self) -> None:
        """Partitions that are not fetched now grow, too: ask for their ends, for `lag`."""
        self._refreshed_at = time.monotonic()
        held = self._ahead.held
        if held:
            with contextlib.suppress(errors.KafkaError, OSError, TimeoutError):
                ends = await self.member.fetcher.end_offsets(held, OFFSETS_TIMEOUT_MILLISECONDS)
                for where, end in ends.items():
                    if where in self._ahead.buffers:
                        self._ahead.buffers[where].end = end

    # Rebalancing

    async def revoked(self) -> None:
        """All partitions are to be given up: called by the coordinator, which waits."""
        async with self._changing:
            await self._let_go()

    async def _let_go(self) -> None:
        lost = sorted(self._owned)
        self._ahead.drop()
        if self._on_revoked is not None and lost:
            seconds = max(1.0, self.member.coordinator.rebalance_seconds())
            try:
                await asyncio.wait_for(self._on_revoked(lost), seconds)
            except TimeoutError:
                LOG.error(
                    "revocation_too_slow", group=self.group, seconds=round(seconds), advice="its work is repeated"
                )
            except Exception:
                LOG.exception("revocation_failed", group=self.group)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), max(1.0, self.member.coordinator.rebalance_seconds()))
        self._owned = frozenset()

    async def given(self, partitions: Iterable[KafkaPartition]) -> None:
        """Partitions were assigned: called by the coordinator."""
        metrics.REBALANCES.inc()
        async with self._changing:
            if self._closed is not None:
                return
            buffers = sorted(map(self._ahead.buffer, partitions), key=lambda buffer: buffer.where)
            self._owned = frozenset(buffer.where for buffer in buffers)
            try:
                await self._position(list(self._ahead.buffers))
                if self._on_assigned is not None and buffers:
                    await self._on_assigned([buffer.where for buffer in buffers])
            except Exception as error:
                self._not_taken_over(error)
                return
            self._ahead.start(buffers)
        if not self._first.done():
            self._first.set_result(None)
        self._wake()

    def _not_taken_over(self, error: Exception) -> None:
        """The service failed to take over what was assigned: fail `start`, or have it assigned again."""
        LOG.exception("assignment_failed", group=self.group)
        if not self._first.done():
            self._first.set_exception(error)
            return
        self._failed_at = time.monotonic()
        self._trouble = f"partitions of the group {self.group} were not taken over: {type(error).__name__}: {error}"
        self._loop.call_later(RETRY_SECONDS, self.member.coordinator.request_rejoin)

    async def _standing(
        self, partitions: Collection[KafkaPartition]
    ) -> tuple[dict[KafkaPartition, OffsetAndMetadata], dict[KafkaPartition, int], dict[KafkaPartition, int]]:
        """What is committed, and where the partitions begin and end; asked until it is known."""
        fetcher, coordinator = self.member.fetcher, self.member.coordinator
        while True:
            try:
                committed = await coordinator.fetch_committed_offsets(partitions)
                firsts = await fetcher.beginning_offsets(partitions, OFFSETS_TIMEOUT_MILLISECONDS)
                ends = await fetcher.end_offsets(partitions, OFFSETS_TIMEOUT_MILLISECONDS)
            except (errors.KafkaError, OSError, TimeoutError) as error:
                LOG.warning("positions_unknown", group=self.group, problem=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return committed, firsts, ends

    async def _position(self, partitions: Collection[KafkaPartition]) -> None:
        """Start where the group stands; where that lies beyond the end, the topic was made anew: start at the earliest."""
        if not partitions:
            return
        committed, firsts, ends = await self._standing(partitions)
        anew: dict[TopicPartition, Progress] = {}
        for where, buffer in self._ahead.buffers.items():
            value = committed.get(where)
            progress = Progress(0) if value is None else parse_progress(self.group, value.offset, value.metadata)
            if progress.low > ends[where]:
                LOG.error(
                    "offset_beyond_end",
                    topic=where.topic,
                    partition=where.partition,
                    offset=progress.low,
                    end=ends[where],
                )
                metrics.RESETS.inc()
                progress = anew[buffer.where] = Progress(firsts[where])
                buffer.clear(firsts[where])
                self.member.seek(where, firsts[where])
            buffer.start(progress, firsts[where], ends[where])
        if anew:
            await self.commit(anew)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """What aiokafka calls; it logs what these raise and goes on, so they must not."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:
        """Before the group is joined anew; first with nothing."""
        await self._consumer.revoked()

    async def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        """After the group was joined."""
        await self._consumer.given(assigned)
