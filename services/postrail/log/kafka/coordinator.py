"""A member's part in its group: aiokafka's coordinator, with what it lacks.

Owns the lease (when the group's coordinator was last known to count on us), leaving the group also under a static name, and
the patience of JoinGroup. It overrides methods of aiokafka whose names are no public interface:
tests/integration/test_log_kafka_client.py fails when an upgrade changes them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.kafka.connection import RETRY_BACKOFF_MILLISECONDS
from postrail.shell import logs

LOG = logs.logger("log")

LEASE_SHARE = 0.8
"""Of the session timeout: whoever was not heard of for so long acts as the owner no more."""
HEARTBEAT_SHARE = 1 / 15
NEVER_MILLISECONDS = 2**31 - 1
JOIN_SLACK_SECONDS = 10.0
_FENCED_INSTANCE_ID = 82
"""An error code that aiokafka has no name for."""
_STRANGER = frozenset({errors.UnknownMemberIdError.errno, _FENCED_INSTANCE_ID})


class CommitRefusedError(Exception):
    """This member is none any more, or its group has moved on: the partitions may have another owner."""


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka has no types
    """As aiokafka's; starts to join at once. Times are `time.monotonic`, which goes on while the process is stopped."""

    def __init__(
        self,
        client: AIOKafkaClient,
        subscription: SubscriptionState,
        *,
        group: str,
        instance: str | None,
        session_timeout_seconds: float,
        rebalance_timeout_seconds: float,
    ) -> None:
        self.session_timeout_seconds = session_timeout_seconds
        self.rebalance_timeout_seconds = rebalance_timeout_seconds
        self.heard_at = -math.inf
        """When the last request was sent in whose answer the coordinator counted on us as a member."""
        self.settled_at = -math.inf
        """The same, for answers that did not ask us to join anew: a rebalance cannot have begun before."""
        self.answered_at = time.monotonic()
        """When the coordinator last answered anything."""
        super().__init__(
            client,
            subscription,
            group_id=group,
            group_instance_id=instance,
            session_timeout_ms=round(session_timeout_seconds * 1000),
            heartbeat_interval_ms=round(session_timeout_seconds * HEARTBEAT_SHARE * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MILLISECONDS,
            enable_auto_commit=False,
            assignors=(RangePartitionAssignor,),
            max_poll_interval_ms=NEVER_MILLISECONDS,
            rebalance_timeout_ms=round(rebalance_timeout_seconds * 1000),
        )

    def lease_seconds(self) -> float:
        """As `Consumer.lease_seconds`: bounded by the session, and by the time that a rebalance gives its members."""
        now = time.monotonic()
        session_ends = self.heard_at + LEASE_SHARE * self.session_timeout_seconds
        rebalance_ends = self.settled_at + self.rebalance_timeout_seconds
        return min(session_ends, rebalance_ends) - now

    def rebalance_seconds(self) -> float:
        """How long the group certainly still waits for us to join anew."""
        left = self.settled_at + self.rebalance_timeout_seconds - time.monotonic()
        return left if math.isfinite(left) else self.rebalance_timeout_seconds

    @property
    def is_member(self) -> bool:
        """Whether the coordinator counted on us when it was last asked."""
        return math.isfinite(self.heard_at)

    @property
    def ended(self) -> bool:
        """Whether the background task is dead; it never comes back."""
        return bool(self._coordination_task.done())

    async def commit(self, offsets: Mapping[KafkaPartition, OffsetAndMetadata], timeout_seconds: float) -> None:
        """Commit as a member.

        Raises:
            CommitRefusedError: this is no member (any more), or the group is being given out anew.
            TimeoutError, KafkaError: the brokers did not take it.
        """
        if not self.is_member:
            raise CommitRefusedError
        try:
            await asyncio.wait_for(self.commit_offsets(None, dict(offsets)), timeout_seconds)
        except errors.CommitFailedError as error:
            raise CommitRefusedError from error

    async def _send_req(self, request: Any) -> Any:
        sent_at = time.monotonic()
        if isinstance(request, JoinGroupRequest | SyncGroupRequest):
            response = await self._patiently(request)
        else:
            response = await super()._send_req(request)
        self.answered_at = time.monotonic()
        code = getattr(response, "error_code", None)
        if isinstance(request, HeartbeatRequest | SyncGroupRequest) and code == 0:
            self.heard_at = self.settled_at = sent_at
        elif isinstance(request, HeartbeatRequest) and code == errors.RebalanceInProgressError.errno:
            self.heard_at = sent_at
        elif code in _STRANGER and self._group_instance_id is not None:
            self._replaced(sent_at)
        return response

    async def _patiently(self, request: Any) -> Any:
        """Send a request that is answered only when all members of the group have joined."""
        connection = None
        if self.coordinator_id is not None:
            connection = await self._client._get_conn(self.coordinator_id, group=ConnectionGroup.COORDINATION)
        if connection is None:
            return await super()._send_req(request)
        usual = connection._request_timeout
        connection._request_timeout = max(usual, self.rebalance_timeout_seconds + JOIN_SLACK_SECONDS)
        try:
            return await super()._send_req(request)
        finally:
            connection._request_timeout = usual

    def _replaced(self, now: float) -> None:
        """The coordinator does not know us although it did just now: somebody else joined under our name."""
        if now - self.heard_at > self.session_timeout_seconds:
            return
        LOG.error(
            "instance_name_taken",
            group=self.group_id,
            instance=self._group_instance_id,
            problem="another process joined the group under the same instance name; give each process its own "
            "(log.kafka.instance); this one goes on without a name",
        )
        self._group_instance_id: str | None = None

    def reset_generation(self) -> None:
        """We are no member any more, and own nothing."""
        self.heard_at = self.settled_at = -math.inf
        super().reset_generation()

    async def _on_join_complete(self, generation: int, member_id: str, protocol: str, assignment: bytes) -> None:
        # aiokafka starts to send heartbeats after the callback only, which may read for longer than a session lasts.
        self._start_heartbeat_task()
        await super()._on_join_complete(generation, member_id, protocol, assignment)

    async def _maybe_leave_group(self) -> None:
        # aiokafka does not leave under a static name, so that partitions would wait for the session to time out.
        if self.generation > 0 and self.is_member:
            try:
                await asyncio.wait_for(self._send_req(LeaveGroupRequest(self.group_id, self.member_id)), 3.0)
            except (errors.KafkaError, TimeoutError) as error:
                LOG.warning("group_not_left", group=self.group_id, problem=str(error) or type(error).__name__)
        self.reset_generation()
