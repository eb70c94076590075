"""Routes one record: a signed message, or a delivery that is due again.

Owns the order: deadline, hops of the recipients' domains, plan, records. Answers at once where every domain's MX is known, and
gives an awaitable where the DNS must be asked or a returned message's body must be read. Decides nothing itself: where mail
goes is `postrail.core.routes`, what becomes of recipients that cannot be routed is `postrail.core.settle`. Stores nothing: the
stage of `postrail.routing.service` appends what comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace

from prometheus_client import Counter

from postrail.core import topics
from postrail.core.address import ascii_domain, domain_of
from postrail.core.dns_answers import MxAnswer
from postrail.core.identity import delivery_id
from postrail.core.records import Delivery, Event, EventType, Lane, Message, Recipient, RouteKind
from postrail.core.replies import Failure, PermanentFailure
from postrail.core.routes import NO_VERSIONS, Hop, Plan, Planned, Router, Versions, hosts_of
from postrail.core.settle import AttemptContext, Policy, RecipientResult, expire, settle
from postrail.log.interface import Append, Body, Record
from postrail.shell import logs
from postrail.shell.context import Context
from postrail.shell.spill import Spill
from postrail.shell.stage import NotReady
from postrail.wire import codec
from postrail.wire.input import delivery_of, message_of
from postrail.wire.output import appends, event_append

LOG = logs.logger("routing")

# Deliveries handed to senders. kind: mx, smarthost, lmtp; group: the destination groups of the configuration. Alert when it
# stays flat while the routing stage has lag.
DELIVERIES = Counter("postrail_routing_deliveries_total", "Deliveries handed to senders.", ["kind", "group"])
# Recipients that could not be routed. outcome: failed (no such domain, null MX, a loop: returned to the sender), deferred (the
# DNS gave no answer: tried again later), expired (the deadline passed). Alert when deferred exceeds a hundredth of the
# deliveries for 10 minutes: look at postrail_dns_queries_total.
UNROUTED = Counter("postrail_routing_unrouted_recipients_total", "Recipients that could not be routed.", ["outcome"])

_UNROUTED = {outcome: UNROUTED.labels(outcome) for outcome in ("failed", "deferred", "expired")}
_DUE = frozenset(topics.lanes(topics.DUE))
MAX_REMEMBERED_HOPS = 50_000
BLOB_RETRY_SECONDS = 15.0

Hops = Mapping[str, Hop | Failure]
Output = Sequence[Append]


class RoutingDesk:
    """Turns records of the topics signed and due into deliveries, events, deferrals and returned mail."""

    def __init__(self, context: Context) -> None:
        self._router = Router(context.config)
        self._resolver = context.resolver
        self._clock = context.clock
        self._jitter = context.jitter
        self._policy = Policy(context.config.delivery.retry, context.config.hostname)
        self._spill = Spill(context)
        self._hops: dict[str, tuple[MxAnswer, Hop | Failure]] = {}
        self._topics: dict[tuple[str, str, Lane], str] = {}
        self._counters = {
            (kind, group): DELIVERIES.labels(kind.name.lower(), group)
            for kind in RouteKind
            for group in context.config.routing.groups
        }

    def handle(self, record: Record) -> Output | Awaitable[Output]:
        """What follows from one record.

        Raises:
            UndecodableRecord: the record is no message (signed) or delivery (due).
        """
        again = record.topic in _DUE
        delivery = delivery_of(record) if again else _whole(message_of(record))
        if self._clock() >= delivery.envelope.expires_at:
            return self._expire(delivery, record)
        hops: dict[str, Hop | Failure] = {}
        for recipient in delivery.envelope.recipients:
            domain = domain_of(recipient.address)
            if domain not in hops:
                hop = self._known_hop(domain)
                if hop is None:
                    return self._ask_and_route(delivery, record)
                hops[domain] = hop
        if self._router.choice(delivery.envelope.stream).mixed:
            return self._ask_and_route(delivery, record)
        return self._route(delivery, hops, record)

    def _known_hop(self, domain: str) -> Hop | Failure | None:
        """The hop of a domain where nothing needs to be asked."""
        fixed = self._router.fixed(domain)
        if fixed is not None:
            return fixed
        answer = self._resolver.mx_sync(ascii_domain(domain))
        return None if answer is None else self._hop(domain, answer)

    def _hop(self, domain: str, answer: MxAnswer) -> Hop | Failure:
        remembered = self._hops.get(domain)
        if remembered is not None and remembered[0] is answer:
            return remembered[1]
        hop = self._router.by_mx(ascii_domain(domain), answer)
        if len(self._hops) >= MAX_REMEMBERED_HOPS:
            self._hops.clear()
        self._hops[domain] = (answer, hop)
        return hop

    async def _ask_and_route(self, delivery: Delivery, record: Record) -> Output:
        domains = {domain_of(recipient.address) for recipient in delivery.envelope.recipients}
        fixed = {domain: self._router.fixed(domain) for domain in domains}
        hops: dict[str, Hop | Failure] = {domain: hop for domain, hop in fixed.items() if hop is not None}
        asked = [domain for domain in domains if domain not in hops]
        answers = await asyncio.gather(*map(self._resolver.mx, asked))
        hops.update({domain: self._hop(domain, answer) for domain, answer in zip(asked, answers, strict=True)})
        versions = NO_VERSIONS
        if self._router.choice(delivery.envelope.stream).mixed:
            found = [hop for hop in hops.values() if isinstance(hop, Hop)]
            versions = {hop.together: await self._versions(hop) for hop in found}
        routed = self._route(delivery, hops, record, versions)
        return await routed if isinstance(routed, Awaitable) else routed

    async def _versions(self, hop: Hop) -> frozenset[int]:
        """By which IP versions a hop's hosts can be reached; asked only where the pool has sources of both."""
        hosts = hosts_of(hop)
        answers = await asyncio.gather(*map(self._resolver.addresses, hosts))
        return frozenset(6 if ":" in address else 4 for answer in answers for address in answer.addresses)

    def _route(
        self, delivery: Delivery, hops: Hops, record: Record, versions: Versions = NO_VERSIONS
    ) -> Output | Awaitable[Output]:
        plan = self._router.plan(delivery.envelope, hops, versions)
        if record.body is not None and self._spill.is_wanted(record.body, _copies(plan)):
            return self._write_spilled(delivery, plan, record.body)
        return self._write(delivery, plan, record.body)

    async def _write_spilled(self, delivery: Delivery, plan: Plan, body: Body) -> Output:
        """As `_write`, with the body in the blob store: the log would store it once for each delivery."""
        try:
            blob = await self._spill.keep(delivery.envelope.message_id, body)
        except OSError as error:
            raise NotReady(BLOB_RETRY_SECONDS, str(error)) from error
        written = self._write(replace(delivery, blob=blob), plan, None)
        return await written if isinstance(written, Awaitable) else written

    def _write(self, delivery: Delivery, plan: Plan, body: Body | None) -> Output | Awaitable[Output]:
        now = self._clock()
        output: list[Append] = []
        for planned in plan.deliveries:
            self._send(delivery, planned, now, body, output)
        if not plan.failed:
            return output
        return self._settle(delivery, plan.failed, output, body)

    def _send(self, delivery: Delivery, planned: Planned, now: float, body: Body | None, output: list[Append]) -> None:
        """Write one delivery to its sender's topic, with the event where the route is new."""
        envelope, route = delivery.envelope, planned.route
        identity = (
            delivery.delivery_id
            if planned.recipients == envelope.recipients
            else delivery_id(envelope.message_id, planned.recipients, delivery.attempts + 1)
        )
        outbound = Delivery(
            identity,
            envelope.to(planned.recipients),
            delivery.header_block,
            delivery.blob,
            route,
            delivery.attempts,
            delivery.last_reply,
            delivery.last_attempt_at,
            delivery.delay_notified,
            delivery.parks,
        )
        topic = self._topic(route.pool, route.group, envelope.lane)
        output.append(Append(topic, route.key, codec.encode_delivery(outbound), body, outbound))
        self._counters[route.kind, route.group].inc()
        if route != delivery.route:
            output.append(event_append(_routed(outbound, now)))

    def _topic(self, pool: str, group: str, lane: Lane) -> str:
        key = (pool, group, lane)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = topics.laned(topics.outbound(pool, group), lane)
        return topic

    async def _settle(
        self, delivery: Delivery, failed: Sequence[tuple[Recipient, Failure]], output: list[Append], inline: Body | None
    ) -> Output:
        """Return or defer the recipients that cannot be routed; what was planned for the others goes with it."""
        recipients = tuple([recipient for recipient, _ in failed])
        part = _part(delivery, recipients)
        results = [RecipientResult(recipient, failure, None) for recipient, failure in failed]
        body = await self._spill.original(part, inline)
        now = self._clock()
        settlement = settle(
            part,
            results,
            AttemptContext(now),
            self._policy,
            now=now,
            jitter=self._jitter(),
            original_body=body,
        )
        for _, failure in failed:
            _UNROUTED["failed" if isinstance(failure, PermanentFailure) else "deferred"].inc()
        LOG.info(
            "unroutable recipients",
            message_id=part.envelope.message_id,
            recipients=len(failed),
            reason=str(failed[0][1].reply),
        )
        return [*output, *appends(settlement, inline)]

    async def _expire(self, delivery: Delivery, record: Record) -> Output:
        """Give up what was not delivered before its deadline."""
        recipients = delivery.envelope.recipients
        _UNROUTED["expired"].inc(len(recipients))
        LOG.info("expired", message_id=delivery.envelope.message_id, recipients=len(recipients))
        body = await self._spill.original(delivery, record.body)
        settlement = expire(delivery, self._policy, now=self._clock(), original_body=body)
        return appends(settlement, record.body)


def _whole(message: Message) -> Delivery:
    """A signed message as a delivery to all its recipients that was not tried yet."""
    envelope = message.envelope
    identity = delivery_id(envelope.message_id, envelope.recipients, 1)
    return Delivery(identity, envelope, message.header_block, message.blob, None)


def _part(delivery: Delivery, recipients: tuple[Recipient, ...]) -> Delivery:
    """The delivery for some of its recipients, without a route."""
    envelope = delivery.envelope
    identity = delivery_id(envelope.message_id, recipients, delivery.attempts + 1)
    return Delivery(
        identity,
        envelope.to(recipients),
        delivery.header_block,
        delivery.blob,
        None,
        delivery.attempts,
        delivery.last_reply,
        delivery.last_attempt_at,
        delivery.delay_notified,
        delivery.parks,
    )


def _routed(delivery: Delivery, now: float) -> Event:
    envelope, route = delivery.envelope, delivery.route
    assert route is not None
    return Event(
        EventType.ROUTED,
        now,
        envelope.message_id,
        tuple([recipient.address for recipient in envelope.recipients]),
        delivery.delivery_id,
        envelope.submitter,
        envelope.stream,
        envelope.tag,
        delivery.attempts + 1,
        site=route.site,
        group=route.group,
        pool=route.pool,
        source_address=route.source_address,
        queued_seconds=now - envelope.received_at,
    )


def _copies(plan: Plan) -> int:
    """How many records would carry the body, at most: the deliveries, and the deferrals of what cannot be routed now."""
    if not plan.failed:
        return len(plan.deliveries)
    return len(plan.deliveries) + sum(not isinstance(failure, PermanentFailure) for _, failure in plan.failed)
