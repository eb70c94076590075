"""One member of a group: aiokafka's client, coordinator and fetcher, composed without `AIOKafkaConsumer`.

Owns their lifetime and nothing else. `AIOKafkaConsumer` makes its own coordinator, which knows no lease and does not leave
under a static name; hence the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from aiokafka import errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.core.log_config import KafkaConfig
from postrail.log.kafka.connection import RETRY_BACKOFF_MILLISECONDS, Connection
from postrail.log.kafka.coordinator import Coordinator

MIN_REQUEST_TIMEOUT_SECONDS = 3.0
FETCH_WAIT_MILLISECONDS = 500
PREFETCH_BACKOFF_SECONDS = 0.1
"""So long after a fetch aiokafka looks again by itself, if nobody said `go_on`."""
TURN_SECONDS = 1.0
"""The fetcher's task turns this often where nothing happens: the watchdog looks at it. Replies and assignments wake it."""
POLL_SECONDS = 0.5
STOP_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""Beyond the longest wait that is right."""


class _Fetcher(Fetcher):  # type: ignore[misc]  # aiokafka has no types
    """As aiokafka's, with a way to drain it that loses nothing, and with what the watchdog needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.turned_at = time.monotonic()
        """When the background task last looked what is to be fetched."""
        self._started: dict[object, float] = {}
        super().__init__(*arguments, **options)

    def _get_actions_per_node(self, assignment: Any) -> Any:
        self.turned_at = time.monotonic()
        return super()._get_actions_per_node(assignment)

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        return await self._timed(super()._proc_fetch_request(assignment, node_id, request))

    async def _update_fetch_positions(self, assignment: Any, node_id: int, tps: Any) -> bool:
        return await self._timed(super()._update_fetch_positions(assignment, node_id, tps))

    async def _timed(self, work: Coroutine[Any, Any, bool]) -> bool:
        mark = object()
        self._started[mark] = time.monotonic()
        try:
            return await work
        finally:
            del self._started[mark]

    @property
    def oldest_request_at(self) -> float:
        """When the request was begun that has waited longest; now when there is none. Each has a timeout."""
        return min(self._started.values(), default=time.monotonic())

    @property
    def ended(self) -> bool:
        """Whether the background task is dead; it never comes back."""
        return bool(self._fetch_task.done())

    async def drain(
        self, timeout_seconds: float
    ) -> tuple[dict[KafkaPartition, Sequence[Any]], errors.KafkaError | None]:
        """What was fetched, and what went wrong; then call `go_on`.

        aiokafka's own method raises, and forgets what it had taken by then.
        """
        if not self._records or self._subscriptions.reassignment_in_progress:
            waiter = self._create_fetch_waiter()
            await asyncio.wait([waiter], timeout=timeout_seconds)
            if not waiter.done():
                waiter.cancel()
                return {}, None
            waiter.result()
        found: dict[KafkaPartition, Sequence[Any]] = {}
        failed: errors.KafkaError | None = None
        if self._subscriptions.reassignment_in_progress:
            return found, failed
        for where in list(self._records):
            result = self._records.pop(where)
            try:
                if isinstance(result, FetchResult):
                    found[where] = result.getall()
                else:
                    result.check_raise()
            except errors.KafkaError as error:
                failed = error  # the position has not moved: it is fetched again
        return found, failed

    def go_on(self, after_seconds: float) -> None:
        """Fetch more of what was drained: now, or after a pause in which records gather."""
        if after_seconds > 0:
            self._loop.call_later(after_seconds, self._consumed)
        else:
            self._consumed()

    def _consumed(self) -> None:
        self._notify(self._wait_consume_future)


class Member:
    """`topics` and `group` by the brokers' names."""

    def __init__(
        self, config: KafkaConfig, connection: Connection, group: str, topics: Sequence[str], instance: str | None
    ) -> None:
        self._config = config
        self._topics = frozenset(topics)
        self._group, self._instance = group, instance
        timeout_seconds = max(MIN_REQUEST_TIMEOUT_SECONDS, config.session_timeout_seconds / 3)
        self.client = AIOKafkaClient(**connection.options(f"consumer-{group}", timeout_seconds))
        self.subscription = SubscriptionState()
        self._coordinator: Coordinator | None = None
        self._fetcher: _Fetcher | None = None

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Connect and begin to join; the listener is told of partitions.

        Raises:
            KafkaError, OSError: no broker answers.
        """
        config = self._config
        self.client.set_topics(self._topics)
        await self.client.bootstrap()
        await self.client.force_metadata_update()
        self._fetcher = _Fetcher(
            self.client,
            self.subscription,
            fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS,
            fetch_max_bytes=max(1 << 20, config.fetch_bytes // 4),
            max_partition_fetch_bytes=max(256 << 10, config.fetch_bytes // 16),
            fetcher_timeout=TURN_SECONDS,
            prefetch_backoff=PREFETCH_BACKOFF_SECONDS + config.pace_seconds,
            retry_backoff_ms=RETRY_BACKOFF_MILLISECONDS,
            auto_offset_reset="earliest",
        )
        self.subscription.subscribe(set(self._topics), listener)
        self._coordinator = Coordinator(
            self.client,
            self.subscription,
            group=self._group,
            instance=self._instance,
            session_timeout_seconds=config.session_timeout_seconds,
            rebalance_timeout_seconds=config.rebalance_timeout_seconds,
        )

    @property
    def coordinator(self) -> Coordinator:
        assert self._coordinator is not None
        return self._coordinator

    @property
    def fetcher(self) -> _Fetcher:
        assert self._fetcher is not None
        return self._fetcher

    async def fetched(self) -> tuple[Mapping[KafkaPartition, Sequence[Any]], errors.KafkaError | None]:
        """What has been fetched, waiting a moment for it, and what went wrong with other partitions.

        Raises:
            KafkaError: what the coordinator met with and cannot help itself.
        """
        self.coordinator.check_errors()
        return await self.fetcher.drain(POLL_SECONDS)

    def dead(self) -> str | None:
        """What can never work again in this member; None when nothing."""
        if self.coordinator.ended:
            return "the coordinator's task has ended"
        return "the fetcher's task has ended" if self.fetcher.ended else None

    def stuck(self) -> str | None:
        """What has stopped working in this process, as far as can be seen from here; None when all works.

        What waits for the brokers has a timeout in aiokafka, after which it turns again.
        """
        now = time.monotonic()
        silence = self._config.rebalance_timeout_seconds + SILENT_SECONDS
        if now - self.coordinator.answered_at > silence:
            return f"the coordinator was asked nothing for {now - self.coordinator.answered_at:.0f} s"
        if now - self.fetcher.oldest_request_at > silence:
            return f"a fetch has been waiting for {now - self.fetcher.oldest_request_at:.0f} s"
        if now - self.fetcher.turned_at > silence and self.subscription.assigned_partitions():
            return f"nothing was fetched for {now - self.fetcher.turned_at:.0f} s"
        return None

    def highwater(self, where: KafkaPartition) -> int:
        """The end of an assigned partition as of the last fetch; 0 when nothing was fetched yet."""
        subscription = self.subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(where)
        return (state.highwater if state is not None else None) or 0

    def _if_assigned(self, where: KafkaPartition, action: Callable[[KafkaPartition], None]) -> None:
        if self.subscription.is_assigned(where):
            action(where)

    def hold(self, where: KafkaPartition) -> None:
        """Fetch nothing more of a partition for now."""
        self._if_assigned(where, self.subscription.pause)

    def release(self, where: KafkaPartition) -> None:
        """Fetch a partition again."""
        self._if_assigned(where, self.subscription.resume)

    def seek(self, where: KafkaPartition, offset: int) -> None:
        """Go on fetching elsewhere."""
        if self.subscription.is_assigned(where):
            self.fetcher.seek_to(where, offset)

    async def stop(self) -> None:
        """Leave the group and disconnect."""
        if self._coordinator is not None:
            with contextlib.suppress(Exception):  # it could not do its work; leaving it behind is all that is left
                await asyncio.wait_for(self._coordinator.close(), STOP_SECONDS)
        if self._fetcher is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._fetcher.close(), STOP_SECONDS)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), STOP_SECONDS)
