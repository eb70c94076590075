"""One member of the scheduler's group, shared by the tiers: each reads its own topic as if it were a member itself.

Owns the one consumer and what was polled for a tier that has no room for it. So a process joins, leaves and is given
partitions once, however many tiers there are. Decides nothing about mail. Neighbour: `postrail.scheduler.tier`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from postrail.log.interface import Consumer, Log, LogUnavailable, Rebalance, Record, TopicPartition

POLL_RECORDS = 500
POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
AHEAD_RECORDS = 500
"""A tier for which so many wait is not read on."""


class TierConsumer:
    """What one tier has of the member. Made by `Membership.consumer`."""

    def __init__(
        self, membership: Membership, topic: str, on_assigned: Rebalance | None, on_revoked: Rebalance | None
    ) -> None:
        self.topic = topic
        self.on_assigned, self.on_revoked = on_assigned, on_revoked
        self.failure: Exception | None = None
        self._membership = membership
        self._records: deque[Record] = deque()
        self._partitions: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._is_full = False
        self._woken = asyncio.Event()

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """As `Consumer.poll`."""
        if not self._records and self.failure is None:
            self._woken.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._woken.wait()
            except TimeoutError:
                return []
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        taken = [self._records.popleft() for _ in range(min(max_records, len(self._records)))]
        self._read_on()
        return taken

    def _read_on(self) -> None:
        if self._is_full and len(self._records) < AHEAD_RECORDS // 2:
            self._is_full = False
            self._membership.resume(self._partitions - self._paused)

    def put(self, record: Record) -> None:
        """Take what was polled of this tier."""
        self._records.append(record)
        self._partitions.add(TopicPartition(record.topic, record.partition))
        self._woken.set()
        if len(self._records) >= AHEAD_RECORDS and not self._is_full:
            self._is_full = True
            self._membership.pause(self._partitions)

    def failed(self, failure: Exception) -> None:
        """Let the next poll raise this."""
        self.failure = failure
        self._woken.set()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """As `Consumer.pause`."""
        self._paused.update(partitions)
        self._membership.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """As `Consumer.resume`."""
        self._paused.difference_update(partitions)
        if not self._is_full:
            self._membership.resume(partitions)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours from now on."""
        self._partitions.update(partitions)
        if self.on_assigned is not None:
            await self.on_assigned(partitions)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget what waits of these: their next owner reads it."""
        gone = set(partitions)
        self._records = deque(record for record in self._records if (record.topic, record.partition) not in gone)
        self._partitions -= gone
        self._paused -= gone
        self._read_on()
        if self.on_revoked is not None:
            await self.on_revoked(partitions)

    async def close(self) -> None:
        """Leave the group, when all tiers do."""
        await self._membership.leave(self)


class Membership:
    """Gives a consumer to each of `topics`, in order of preference; the group is joined when all have asked for theirs."""

    def __init__(self, log: Log, topics: Sequence[str]) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._tiers: dict[str, TierConsumer] = {}
        self._joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing: set[str] = set()
        self._left = asyncio.Event()
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> TierConsumer:
        """As `Log.consumer`, for one topic."""
        (topic,) = topics
        tier = self._tiers[topic] = TierConsumer(self, topic, on_assigned, on_revoked)
        if len(self._tiers) == len(self._topics):
            await self._join(group)
        await self._joined
        return tier

    async def _join(self, group: str) -> None:
        try:
            self._consumer = await self._log.consumer(
                self._topics, group, on_assigned=self._assigned, on_revoked=self._revoked
            )
        except BaseException as error:
            self._joined.set_exception(error if isinstance(error, Exception) else LogUnavailable("not joined"))
            raise
        self._task = asyncio.create_task(self._run(self._consumer), name="scheduler reads")
        self._joined.set_result(None)

    async def _run(self, consumer: Consumer) -> None:
        while True:
            try:
                records = await consumer.poll(POLL_RECORDS, POLL_SECONDS)
            except Exception as error:
                for tier in self._tiers.values():
                    tier.failed(error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for record in records:
                self._tiers[record.topic].put(record)

    def pause(self, partitions: Sequence[TopicPartition] | set[TopicPartition]) -> None:
        """As `Consumer.pause`."""
        if self._consumer is not None:
            self._consumer.pause(tuple(partitions))

    def resume(self, partitions: Sequence[TopicPartition] | set[TopicPartition]) -> None:
        """As `Consumer.resume`."""
        if self._consumer is not None:
            self._consumer.resume(tuple(partitions))

    async def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        own = self._by_tier(partitions)
        await asyncio.gather(*(tier.assigned(partitions) for tier, partitions in own))

    async def _revoked(self, partitions: Sequence[TopicPartition]) -> None:
        own = self._by_tier(partitions)
        await asyncio.gather(*(tier.revoked(partitions) for tier, partitions in own))

    def _by_tier(self, partitions: Sequence[TopicPartition]) -> list[tuple[TierConsumer, list[TopicPartition]]]:
        own: dict[str, list[TopicPartition]] = {}
        for partition in partitions:
            own.setdefault(partition.topic, []).append(partition)
        return [(self._tiers[topic], mine) for topic, mine in own.items()]

    async def leave(self, tier: TierConsumer) -> None:
        """Return when the group is left: when all tiers are."""
        self._closing.add(tier.topic)
        if len(self._closing) < len(self._tiers):
            await self._left.wait()
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._consumer is not None:
            await self._consumer.close()
        self._left.set()
