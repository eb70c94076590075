"""What follows from an attempt: the events to record, the deferrals to keep, the notifications to send.

Owns the step from the results of one delivery's recipients to a Settlement. Pure: time and jitter are arguments, and ids follow
from the delivery's, so that a repeat gives the same ones.
Used by the sender (after a transaction) and by routing (failures before one). `postrail.wire.output` turns a Settlement into
appends. Neighbours: `verdicts` (what a reply means), `retry` (when), `dsn` (the notifications), `bounces` (why).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from postrail.core import dsn
from postrail.core.bounces import BounceClass, classify
from postrail.core.delivery_config import RetryConfig
from postrail.core.dsn import Action, Notice, RecipientStatus
from postrail.core.identity import delivery_id, notice_id
from postrail.core.records import BlobRef, Deferred, Delivery, Event, EventType, Notify, Recipient, RouteKind
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.retry import GiveUp, RetryAt, next_attempt, turn
from postrail.core.verdicts import enhanced_status

EXPIRED_STATUS = "5.4.7"
AMBIGUOUS_DETAIL = "may be delivered more than once"
_SUCCESS_STATUS = "2.0.0"


class RecipientResult(NamedTuple):
    """What became of one recipient; `failure` None means delivered, and `reply` is what the receiver said.

    `ambiguous`: the final dot was sent and not answered, so this recipient may have the message.
    """

    recipient: Recipient
    failure: Failure | None
    reply: Reply | None
    ambiguous: bool = False


class AttemptContext(NamedTuple):
    """How the attempt went, for all its recipients.

    Attributes:
        started_at: Unix seconds.
        mx_host: the host that was spoken to; "" where none was reached.
        tls: version and cipher; "" for plaintext.
        remote_supports_dsn: the next hop took over the duty to notify (RFC 3461 §5.2).
        site_delay_seconds: for how long the site is left alone anyway; a retry is not earlier.
    """

    started_at: float
    duration_seconds: float = 0.0
    mx_host: str = ""
    mx_address: str = ""
    tls: str = ""
    remote_supports_dsn: bool = False
    site_delay_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a settlement needs from the configuration: `hostname` is the Reporting-MTA."""

    retry: RetryConfig
    hostname: str


class Settlement(NamedTuple):
    """What is to be appended, all or nothing. `deferred` pairs the tier's seconds with the record."""

    events: tuple[Event, ...]
    deferred: tuple[tuple[float, Deferred], ...] = ()
    notices: tuple[Notice, ...] = ()

    def with_blob(self, blob: BlobRef) -> Settlement:
        """The same, with the body of what is deferred in the blob store."""
        return self._replace(
            deferred=tuple(
                [
                    (tier_seconds, replace(waiting, delivery=replace(waiting.delivery, blob=blob)))
                    for tier_seconds, waiting in self.deferred
                ]
            )
        )


def settle(
    delivery: Delivery,
    results: Sequence[RecipientResult],
    attempt: AttemptContext,
    policy: Policy,
    *,
    now: float,
    jitter: float,
    original_body: bytes | None = None,
) -> Settlement:
    """Settle one attempt.

    Recipients with the same fate share one event and one deferral. An attempt that failed after the deadline is EXPIRED.

    Args:
        results: one for each recipient of the delivery.
        now: Unix seconds.
        jitter: fraction in [0, 1).
        original_body: needed only to honour RET=FULL; None returns the header block.
    """
    first = results[0]
    if len(results) == 1 and first.failure is None and first.recipient.notify == Notify.ABSENT:
        return Settlement(
            (_event(delivery, EventType.DELIVERED, (first.recipient.address,), attempt, now, reply=first.reply),)
        )
    return _Settling(delivery, attempt, policy, now, jitter, original_body).settle(results)


def expire(delivery: Delivery, policy: Policy, *, now: float, original_body: bytes | None = None) -> Settlement:
    """Give up all recipients of a delivery whose deadline has passed without (another) attempt."""
    attempt = AttemptContext(delivery.last_attempt_at)
    settling = _Settling(delivery, attempt, policy, now, 0.0, original_body, counted=False)
    failure = TemporaryFailure(delivery.last_reply, Scope.RECIPIENT) if delivery.last_reply else None
    settling.expire([RecipientResult(recipient, failure, None) for recipient in delivery.envelope.recipients])
    return settling.result()


def park(delivery: Delivery, wait_seconds: float, reason: str, policy: Policy, *, now: float) -> Settlement:
    """Keep a delivery that its site cannot take now. No attempt is counted, so its id stays; the parking is.

    Args:
        wait_seconds: until its turn, as `retry.turn` understands it.
    """
    when = turn(wait_seconds, policy.retry, now, delivery.envelope.expires_at)
    addresses = tuple([recipient.address for recipient in delivery.envelope.recipients])
    event = _event(
        delivery,
        EventType.PARKED,
        addresses,
        AttemptContext(now),
        now,
        due_at=when.due_at,
        detail=reason,
        attempt_number=delivery.attempts,
    )
    waiting = replace(delivery, parks=delivery.parks + 1)
    return Settlement((event,), ((when.tier_seconds, Deferred(waiting, now, when.due_at, reason)),))


def _event(
    delivery: Delivery,
    kind: EventType,
    addresses: tuple[str, ...],
    attempt: AttemptContext,
    now: float,
    *,
    reply: Reply | None = None,
    scope: Scope | None = None,
    due_at: float = 0.0,
    detail: str = "",
    bounce_class: str = "",
    attempt_number: int = -1,
) -> Event:
    envelope = delivery.envelope
    route = delivery.route
    return Event(
        kind,
        now,
        envelope.message_id,
        addresses,
        delivery.delivery_id,
        envelope.submitter,
        envelope.stream,
        envelope.tag,
        attempt_number if attempt_number >= 0 else delivery.attempts + 1,
        reply,
        scope,
        route.site if route else "",
        route.group if route else "",
        route.pool if route else "",
        route.source_address if route else "",
        attempt.mx_host,
        attempt.mx_address,
        attempt.tls,
        attempt.duration_seconds,
        now - envelope.received_at,
        due_at,
        detail,
        envelope.header_message_id,
        envelope.reverse_path,
        envelope.size_bytes,
        bounce_class,
    )


@dataclass(slots=True)
class _Settling:
    """One settlement in the making."""

    delivery: Delivery
    attempt: AttemptContext
    policy: Policy
    now: float
    jitter: float
    original_body: bytes | None
    counted: bool = True
    events: list[Event] = field(default_factory=list)
    deferred: list[tuple[float, Deferred]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def attempt_number(self) -> int:
        return self.delivery.attempts + (1 if self.counted else 0)

    def result(self) -> Settlement:
        return Settlement(tuple(self.events), tuple(self.deferred), tuple(self.notices))

    def settle(self, results: Sequence[RecipientResult]) -> Settlement:
        delivered = [result for result in results if result.failure is None]
        failed = [result for result in results if isinstance(result.failure, PermanentFailure)]
        deferred = [result for result in results if isinstance(result.failure, TemporaryFailure)]
        if delivered:
            self._deliver(delivered)
        if failed:
            self._record(EventType.FAILED, failed)
            self._notify([self._status(result, Action.FAILED) for result in failed])
        if deferred:
            self._defer(deferred)
        return self.result()

    def _deliver(self, results: Sequence[RecipientResult]) -> None:
        self._record(EventType.DELIVERED, results)
        route = self.delivery.route
        final = route is not None and route.kind is RouteKind.LMTP
        if final or not self.attempt.remote_supports_dsn:
            action = Action.DELIVERED if final else Action.RELAYED
            self._notify([self._status(result, action) for result in results])

    def _defer(self, results: Sequence[RecipientResult]) -> None:
        delivery = self.delivery
        when = next_attempt(
            self.attempt_number,
            self.policy.retry,
            self.now,
            self.jitter,
            delivery.envelope.expires_at,
            at_least_seconds=self.attempt.site_delay_seconds or 0.0,
        )
        ambiguous = [result for result in results if result.ambiguous]
        if ambiguous:
            self._record(EventType.AMBIGUOUS, ambiguous, detail=AMBIGUOUS_DETAIL)
        if isinstance(when, GiveUp):
            self.expire(results)
            return
        self._record(EventType.DEFERRED, results, due_at=when.due_at)
        notified = delivery.delay_notified or self._warn(results)
        for group in _grouped(results, _code_of):
            self._keep(group, when, notified)

    def _keep(self, group: Sequence[RecipientResult], when: RetryAt, notified: bool) -> None:
        delivery = self.delivery
        recipients = tuple([result.recipient for result in group])
        reply = _reply_of(group[0])
        waiting = replace(
            delivery,
            delivery_id=delivery_id(delivery.envelope.message_id, recipients, self.attempt_number + 1),
            envelope=delivery.envelope.to(recipients),
            attempts=self.attempt_number,
            last_reply=reply,
            last_attempt_at=self.attempt.started_at,
            delay_notified=notified,
            parks=0,
        )
        reason = str(reply) if reply else ""
        self.deferred.append((when.tier_seconds, Deferred(waiting, self.now, when.due_at, reason)))

    def _warn(self, results: Sequence[RecipientResult]) -> bool:
        """Tell of the delay, once, those who asked for it."""
        if self.now - self.delivery.envelope.received_at < self.policy.retry.delay_warning_seconds:
            return False
        self._notify([self._status(result, Action.DELAYED) for result in results])
        return True

    def expire(self, results: Sequence[RecipientResult]) -> None:
        """The deadline has passed for these."""
        self._record(EventType.EXPIRED, results)
        self._notify([replace(self._status(result, Action.FAILED), status=EXPIRED_STATUS) for result in results])

    def _status(self, result: RecipientResult, action: Action) -> RecipientStatus:
        reply = _reply_of(result)
        if result.failure is None:
            status = reply.enhanced if reply and reply.enhanced.startswith("2.") else _SUCCESS_STATUS
        else:
            permanent = action is Action.FAILED
            status = enhanced_status(reply, permanent=permanent) if reply else ("5.0.0" if permanent else "4.0.0")
        ours = result.failure is not None and result.failure.internal
        return RecipientStatus(result.recipient, action, status, reply, "" if ours else self.attempt.mx_host)

    def _record(
        self, kind: EventType, results: Sequence[RecipientResult], *, due_at: float = 0.0, detail: str = ""
    ) -> None:
        for group in _grouped(results, _fate_of):
            failure = group[0].failure
            reply = _reply_of(group[0])
            bounce_class: BounceClass | str = ""
            if failure is not None or kind is EventType.EXPIRED:
                bounce_class = classify(reply, expired=kind is EventType.EXPIRED)
            event = _event(
                self.delivery,
                kind,
                tuple([result.recipient.address for result in group]),
                self.attempt,
                self.now,
                reply=reply,
                scope=failure.scope if failure else None,
                due_at=due_at,
                detail=detail,
                bounce_class=str(bounce_class),
                attempt_number=self.attempt_number,
            )
            self.events.append(event)

    def _notify(self, statuses: Sequence[RecipientStatus]) -> None:
        action = statuses[0].action
        until = self.delivery.envelope.expires_at if action is Action.DELAYED else 0.0
        told = [status for status in statuses if dsn.wanted(status.recipient, action)]
        if not told or not self.delivery.envelope.reverse_path:
            return
        addresses = tuple([status.recipient.address for status in told])
        identity = notice_id(self.delivery.delivery_id, action, addresses, self.delivery.envelope.received_at)
        report = dsn.Report(identity, self.policy.hostname, self.now, self.attempt.started_at, until)
        notice = dsn.build(
            dsn.Original(self.delivery.envelope, self.delivery.header_block, self.original_body), told, report
        )
        if notice is None:
            return
        self.notices.append(notice)
        event = _event(
            self.delivery,
            EventType.NOTIFIED,
            addresses,
            self.attempt,
            self.now,
            detail=f"{action} {identity}",
            attempt_number=self.attempt_number,
        )
        self.events.append(event)


def _reply_of(result: RecipientResult) -> Reply | None:
    return result.failure.reply if result.failure is not None else result.reply


def _fate_of(result: RecipientResult) -> tuple[str, str]:
    reply = _reply_of(result)
    return (str(reply), result.failure.scope if result.failure else "")


def _code_of(result: RecipientResult) -> tuple[str, str]:
    reply = _reply_of(result)
    return (f"{reply.code} {reply.enhanced}" if reply else "", "")


def _grouped(
    results: Sequence[RecipientResult], key: Callable[[RecipientResult], tuple[str, str]]
) -> list[list[RecipientResult]]:
    """The results with the same key together, in the order of each key's first."""
    if len(results) == 1:
        return [list(results)]
    groups: dict[tuple[str, str], list[RecipientResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return list(groups.values())
