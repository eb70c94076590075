"""The sender: gives the deliveries of the outbound topics to the receivers' mail servers.

Owns the way of a record into the queue of its source address and site, the bounds on what is held in memory, start and drain.
Reading goes on past a slow site: what exceeds its queue is parked in the log. Neighbours: `intake` reads, `site_queue` decides,
`connection` talks, `settling` and `outcomes` record. Its topics are written by routing; what it defers, the scheduler returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import Counter, Gauge

from postrail.core.dns_answers import DnsStatus, MxAnswer, MxHost
from postrail.core.identity import hand_over, settlement
from postrail.core.limits import limits_for
from postrail.core.records import Delivery, Lane, Route, RouteKind
from postrail.core.settle import Policy
from postrail.core.topics import outcomes
from postrail.log.interface import Record, TopicPartition
from postrail.sender import handover
from postrail.sender.intake import Intake
from postrail.sender.job import Job, Ownership, Partition
from postrail.sender.load import Load
from postrail.sender.outcomes import Outcomes
from postrail.sender.session import Opening
from postrail.sender.settling import Settler
from postrail.sender.site_queue import SiteQueue
from postrail.sender.slots import Slots
from postrail.sender.sources import Sources
from postrail.sender.targets import NextHop, TargetFinder
from postrail.shell import logs
from postrail.shell.context import Context
from postrail.shell.dead_letters import dead_letter
from postrail.shell.spill import Spill
from postrail.wire import codec
from postrail.wire.input import delivery_of

LOG = logs.logger("sender")

# Connections that are open or being opened, by destination group. Nothing to alert on.
OPEN = Gauge("postrail_sender_connections_open", "Connections.", ["group"])
# Connections that could not leave, or would not have left, from their source address. Mail for it waits. Alert on any increase.
SOURCE_MISMATCH = Counter("postrail_sender_source_mismatch_total", "Connections from the wrong source address, closed.")
# Records that are no deliveries; they went to dead-letters. Alert on any increase.
POISON = Counter("postrail_sender_dead_letters_total", "Records of the outbound topics that cannot be read.")

# Records whose delivery was sent, or is under way, because of another record: what a crash left twice in the log. Not sent again.
# Nothing to alert on while processes crash or move; a steady increase without that is a defect.
REPEATS = Counter("postrail_sender_repeats_total", "Records recognised as repeats, and not sent.")

EVICT_SECONDS = 30.0
"""When memory is full, room is made at the cost of sites at which a delivery waits longer than this."""
MEASURE_SECONDS = 5.0
MAX_HOPS = 50_000
"""Next hops that are remembered; they are cheap to make again."""


class SenderService:
    """Sends the mail of one pool and of some destination groups, or of all of the configuration (None)."""

    name = "sender"

    def __init__(self, context: Context, pool: str | None = None, groups: Sequence[str] | None = None) -> None:
        config = context.config
        self._context = context
        self._config = config
        self._delivery = config.delivery
        self._queues: dict[tuple[str, str, str], SiteQueue] = {}
        self._hops: dict[tuple[RouteKind, str, int], tuple[MxAnswer | None, NextHop]] = {}
        self._ehlo = {source.address: source.ehlo for pool in config.pools.values() for source in pool.sources}
        self._resolving: set[asyncio.Task[None]] = set()
        self._draining = False
        self._held = 0
        self._measuring: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.clock = context.clock
        self.blobs = context.blobs
        self.shares = context.shares
        self.timeouts = self._delivery.timeouts
        self.back_off_seconds = self._delivery.retry.site_backoff_seconds
        self.return_seconds = self.shares / self._delivery.retry.returns_per_second
        self.slow_seconds = self._delivery.retry.tiers_seconds[0]  # parked, a delivery waits that long anyway
        self.slots = Slots(context.slots_directory, context.shares)
        self._outcomes = Outcomes(context.log, self._durable, self._told_on)
        policy = Policy(self._delivery.retry, config.hostname)
        self.settler = Settler(self._outcomes, policy, Spill(context), context.clock, context.jitter)
        self._finder = TargetFinder(config, context.resolver, context.jitter)
        pools = config.pools if pool is None else (pool,)
        self._sources = Sources({of_pool: config.pools[of_pool] for of_pool in pools})
        to_groups = config.routing.groups if groups is None else groups
        self._intakes = [Intake(context.log, of_pool, to, self) for of_pool in pools for to in to_groups]
        self._load = Load(self._intakes, context.clock)
        self._by_name = {intake.name: intake for intake in self._intakes}

    async def start(self) -> None:
        """Join the groups and begin to send; raises LogError."""
        self._outcomes.start()
        await asyncio.gather(*(intake.start() for intake in self._intakes))
        self._measuring = asyncio.create_task(self._measure(), name="sender measures")
        self._watching = asyncio.create_task(self._sources.watch(), name="sender watches addresses")

    async def drain(self) -> None:
        """Start nothing new; what is not past its final dot stays in the log; wait for the rest; commit; release."""
        self._draining = True
        for task in (self._measuring, self._watching):
            if task is not None:
                task.cancel()
        for intake in self._intakes:
            await intake.stop_reading()
        for task in self._resolving:
            task.cancel()
        for queue in self._queues.values():
            queue.stop(now=True)
        connections = [connection for queue in self._queues.values() for connection in queue.connections]
        await handover.end(connections, self._delivery.drain_seconds)
        await self._outcomes.close(self._delivery.drain_seconds)
        for intake in self._intakes:
            await intake.close()

    def problem(self) -> str | None:
        """Why mail does not go out; None when all is well."""
        return self._outcomes.refusal or next((intake.problem for intake in self._intakes if intake.problem), None)

    # what the queues call

    def queue_is_idle(self, queue: SiteQueue) -> None:
        """Forget a queue that has nothing to remember."""
        if not queue.backlog.depth and not queue.is_worth_keeping and self._queues.get(queue.key) is queue:
            del self._queues[queue.key]

    def source_failed(self, source: str, reason: str) -> None:
        """Tell of a source address that cannot be used."""
        SOURCE_MISMATCH.inc()
        LOG.error(
            "source-mismatch", source=source, reason=reason, action="its mail waits; check that the address is up"
        )

    def connections_changed(self, queue: SiteQueue, difference: int) -> None:
        """Count connections."""
        OPEN.labels(queue.group).inc(difference)

    # records come in

    def room(self, intake: Intake) -> int:
        """How many records may be taken up: each intake has its share, however much the others hold."""
        if intake.is_spread_out():
            for job in list(intake.laggards()):
                self._queue_of(job).park(job, "it holds back the log's commits")
            return 0
        bound = self._delivery.max_in_memory
        room = max(bound - self._held, bound // len(self._intakes) - intake.held)
        if room <= 0 and self._make_room():
            return 0  # until the parking is durable
        return room

    def _make_room(self) -> bool:
        slowest = max(self._queues.values(), key=SiteQueue.estimated_wait_seconds, default=None)
        if slowest is None or slowest.estimated_wait_seconds() < EVICT_SECONDS:
            return False
        parked = slowest.park_half(f"{slowest.site} is slow, and other mail needs the memory")
        LOG.info("parked", site=slowest.site, source=slowest.source, deliveries=parked)
        return parked > 0

    def take(self, intake: Intake, records: Sequence[Record]) -> None:
        """Queue the records of one poll."""
        touched: dict[SiteQueue, None] = {}
        for record in records:
            partition = intake.partition(record)
            if partition is None:
                continue
            intake.held += 1
            self._held += 1
            name = ""
            try:
                delivery = delivery_of(record)
                route = delivery.route
                if route is None:
                    raise codec.UndecodableRecord("a delivery without a route")
                if partition.ownership is not None:
                    name = hand_over(delivery)
                    delivery = _without_superseded(partition.ownership, delivery)
                    if not delivery.envelope.recipients or self._is_repeat(partition.ownership, record, name):
                        REPEATS.inc()
                        self._outcomes.record(partition, record.offset, ())
                        continue
                    _begin(partition.ownership, record, delivery)
            except codec.UndecodableRecord as error:
                self._bury(partition, record, error)
                continue
            lane = Lane.URGENT if record.topic.endswith(".urgent") else Lane.BULK
            hop = self._hop(route)
            job = Job(
                delivery, partition, record.offset, lane, record.body, record.appended_at, hop or _UNKNOWN_HOP, name
            )
            partition.jobs[record.offset] = job
            if hop is None:
                task = asyncio.create_task(self._resolve(job, route), name="sender resolves")
                self._resolving.add(task)
                task.add_done_callback(self._resolving.discard)
            else:
                touched[self._put(job)] = None
        for queue in touched:
            queue.pump()

    @staticmethod
    def _is_repeat(ownership: Ownership, record: Record, name: str) -> bool:
        """Whether the delivery is sent, or under way, because of another record, or of this one before the commit was lost."""
        return not ownership.repeats.is_first(name) or ownership.repeats.is_finished(record.offset)

    def _put(self, job: Job) -> SiteQueue:
        queue = self._queue_of(job)
        if job.delivery.envelope.expires_at <= self.clock():
            self.settler.expire(job)
        elif (
            queue.backlog.depth >= self._delivery.max_site_queue and queue.estimated_wait_seconds() > self.slow_seconds
        ):
            self.settler.park(
                job, queue.parking_seconds(), f"{queue.site} is slow: {queue.backlog.depth} deliveries wait for it"
            )
        else:
            queue.put(job)
        return queue

    def _queue_of(self, job: Job) -> SiteQueue:
        route = job.delivery.route
        assert route is not None
        domain = route.next_hop if route.next_hop in self._delivery.domain_limits else ""
        key = (route.source_address, route.site, domain)
        queue = self._queues.get(key)
        if queue is None:
            limits = limits_for(self._delivery, route.source_address, route.site, domain)
            opening = Opening(
                self._sources.of(route.source_address),
                self._ehlo.get(route.source_address, self._config.hostname),
                self._delivery.tls,
                limits.tls_required,
                self.timeouts,
                self._finder,
                _no_wait,
            )
            queue = self._queues[key] = SiteQueue(key, route.group, limits, opening, self, job.partition)
        return queue

    def _hop(self, route: Route) -> NextHop | None:
        """The mail hosts of a route; None: the DNS must be asked."""
        key = (route.kind, route.next_hop, route.port)
        answer = None
        hosts: tuple[MxHost, ...] = (MxHost(0, route.next_hop),)
        if route.kind is RouteKind.MX:
            answer = self._context.resolver.mx_sync(route.next_hop)
            if answer is None or answer.status is not DnsStatus.FOUND:
                return None
            hosts = answer.hosts
        known = self._hops.get(key)
        if known is None or known[0] is not answer:
            if len(self._hops) >= MAX_HOPS:
                self._hops.clear()
            known = self._hops[key] = (answer, NextHop(route.kind, route.port, hosts))
        return known[1]

    async def _resolve(self, job: Job, route: Route) -> None:
        answer = await self._context.resolver.mx(route.next_hop)
        if self._draining or job.partition.leaving:
            return
        if answer.status is DnsStatus.FOUND:
            job.hop = NextHop(route.kind, route.port, answer.hosts)
            self._put(job).pump()
            return
        self.settler.park(job, self.back_off_seconds[0], f"{route.next_hop}: {answer.detail or answer.status}")

    def _bury(self, partition: Partition, record: Record, error: Exception) -> None:
        """Keep a record that cannot be read where a person will look for it."""
        POISON.inc()
        LOG.error("dead-letter", topic=record.topic, offset=record.offset, reason=str(error))
        self._outcomes.record(partition, record.offset, [dead_letter(record, self.name, error, 1, self.clock())])

    # partitions come and go

    async def give_up(self, intake: Intake, partitions: Sequence[Partition]) -> None:
        """Finish or forget all that is under way of these partitions."""
        queues = list(self._queues.values())
        forgotten = await handover.give_up(partitions, queues, self._outcomes, self._delivery.drain_seconds)
        self._held -= forgotten
        intake.held -= forgotten
        intake.taken -= forgotten
        for each in self._intakes:
            each.has_room.set()

    def take_over(self, partitions: Sequence[Partition]) -> None:
        """These partitions are ours from now on; a queue that was ours before starts with nothing saved up."""
        owned = {partition.place: partition.ownership for partition in partitions}
        for queue in self._queues.values():
            ownership = owned.get(queue.place)
            if ownership is not None:
                queue.take_over(ownership)

    def names_not_durable(self, partition: TopicPartition) -> Sequence[str]:
        """Hand-overs of a partition whose outcome is known to this process only."""
        return self._outcomes.names_not_durable(partition)

    def _told_on(self, reader_group: str) -> str:
        intake = self._by_name[reader_group]
        return outcomes(intake.pool, intake.group)

    # outcomes are durable

    def _durable(self, finished: Sequence[Partition]) -> None:
        self._held -= len(finished)
        for partition in finished:
            intake = self._by_name[partition.group]
            intake.held -= 1
            intake.has_room.set()
        if self._held < self._delivery.max_in_memory:
            for intake in self._intakes:
                intake.has_room.set()

    async def _measure(self) -> None:
        while True:
            self._load.measure(self._queues.values())
            for queue in list(self._queues.values()):
                if not queue.connections:
                    self.queue_is_idle(queue)
            for intake in self._intakes:
                intake.has_room.set()  # a slow site may have become evictable
            await asyncio.sleep(MEASURE_SECONDS)


_UNKNOWN_HOP = NextHop(RouteKind.MX, 0, ())


def _without_superseded(ownership: Ownership, delivery: Delivery) -> Delivery:
    """A retry without the recipients whose attempt is made again, because its owner died before it could say that it was made."""
    attempts, envelope = delivery.attempts, delivery.envelope
    if not attempts:
        return delivery
    names = [settlement(envelope.message_id, recipient.address) for recipient in envelope.recipients]
    left = tuple(
        [
            recipient
            for recipient, name in zip(envelope.recipients, names, strict=True)
            if not ownership.repeats.is_superseded(name, attempts)
        ]
    )
    return delivery if len(left) == len(names) else replace(delivery, envelope=envelope.to(left))


def _begin(ownership: Ownership, record: Record, delivery: Delivery) -> None:
    """Remember whom a record is for that a predecessor may have begun: there may be a retry for them already."""
    if record.appended_at < ownership.inherited_before:
        for recipient in delivery.envelope.recipients:
            ownership.repeats.begin(settlement(delivery.envelope.message_id, recipient.address), delivery.attempts)


async def _no_wait() -> None:
    """The queue puts its own in this place."""
