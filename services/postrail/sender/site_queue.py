"""All mail from one source address to one site: its backlog, its limits, its connections.

Owns when a delivery goes and on which connection (it takes only deliveries whose own mail hosts include the one it is connected
to), when a connection is opened, and how long the site is left alone. Limits hold here exactly, because all such mail of this
process passes through one queue; `slots` shares connections with the machine's other processes, rates are divided by their
number. `backlog` has the order, `connection` talks, `settling` records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from postrail.core.back_off import BackOff
from postrail.core.delivery_config import TimeoutsConfig
from postrail.core.limits import Limits, connection_pace, message_pace
from postrail.core.parking import Parking
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.settle import AttemptContext, RecipientResult
from postrail.core.throughput import Throughput
from postrail.sender.backlog import Backlog, Bundle
from postrail.sender.connection import Connection
from postrail.sender.egress import SourceMismatch
from postrail.sender.job import Job, Ownership, Partition
from postrail.sender.session import Opening, Unreachable
from postrail.sender.settling import Settler
from postrail.sender.slots import Slots
from postrail.shell import logs
from postrail.shell.blobs import BlobStore

LOG = logs.logger("sender")

FIRST_CONNECTIONS = 2
"""How many are opened at a time while none is established."""
SLOT_RETRY_SECONDS = 0.25
CROWDED_IDLE_SECONDS = 1.0
"""How long a connection may idle when other processes want its slot."""
STALE_RETRY_SECONDS = 1.0
"""How often a process that may have lost a partition looks whether it still has it."""
CAUTION_SECONDS = 60.0
"""How long no further connection is opened after a site refused one beside those that work."""
SUSPENDED_STEP = 1
"""Which of the back-off's steps mail of a suspended site is parked for; a long line waits for its turn."""


class Owner(Protocol):
    """What a queue needs from the service: shared parts, and to be told of room."""

    settler: Settler
    slots: Slots
    blobs: BlobStore
    clock: Callable[[], float]
    shares: int
    back_off_seconds: tuple[float, ...]
    return_seconds: float
    timeouts: TimeoutsConfig

    def queue_is_idle(self, queue: SiteQueue) -> None:
        """Nothing waits and no connection is left."""
        ...

    def source_failed(self, source: str, reason: str) -> None:
        """The source address cannot be used."""
        ...

    def connections_changed(self, queue: SiteQueue, difference: int) -> None:
        """Connections were opened or closed."""
        ...


class SiteQueue:
    """The queue of one source address and site.

    Args:
        key: names the queue: source, site, and the recipient domain where that has limits of its own.
        partition: where its deliveries come from: whoever owns that owns the queue.
    """

    def __init__(
        self,
        key: tuple[str, str, str],
        group: str,
        limits: Limits,
        opening: Opening,
        owner: Owner,
        partition: Partition,
    ) -> None:
        self.key = key
        self.place = partition.place
        self.source, self.site, _ = key
        self.group = group
        self.limits = limits
        self.timeouts = owner.timeouts
        self.clock = owner.clock
        self.backlog = Backlog(owner.back_off_seconds)
        self.connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._messages = message_pace(limits, owner.shares)
        self._openings = connection_pace(limits, owner.shares)
        self._opening = replace(opening, before_connect=self._wait_for_connection)
        self._throughput = Throughput(self._messages.interval_seconds, self._loop.time())
        self._parking = Parking(owner.return_seconds)
        self._back_off = BackOff(owner.back_off_seconds)
        self._allowed = limits.connections
        self._careful_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stopping = False
        self._ownership = partition.ownership
        if self._ownership is not None:
            self.take_over(self._ownership)

    # owners change

    def take_over(self, ownership: Ownership) -> None:
        """Its partition is (again) this process's: nothing is saved up of what the limits allow."""
        self._ownership = ownership
        self._messages.start_empty(ownership.since)
        self._openings.start_empty(ownership.since)

    def let_go(self) -> list[Connection]:
        """Its partition goes to another process: forget what waits, stop what is not past its final dot.

        Returns:
            The connections, each of which ends by itself.
        """
        self.backlog.forget_leaving()
        connections = list(self.connections)
        for connection in connections:
            connection.stop(now=True)
        return connections

    def _is_stale(self) -> bool:
        """Whether another process may own the partition by now; asked again later."""
        if self._ownership is None or self._ownership.lease_seconds() > 0:
            return False
        self._soon(STALE_RETRY_SECONDS)
        return True

    # work comes in

    def put(self, job: Job) -> None:
        """Take a delivery; what cannot go now is parked at once. `pump` afterwards."""
        now = self._loop.time()
        if self.limits.suspend:
            steps = self._owner.back_off_seconds
            step_seconds = steps[min(SUSPENDED_STEP, len(steps) - 1)]
            wait_seconds = self._parking.blocked(step_seconds, self._throughput.seconds_each, now)
            self._owner.settler.park(job, wait_seconds, f"mail to {self.site} is suspended (limits)")
            return
        bundle = self.backlog.bundle(job.hop)
        blocked_seconds = max(self._back_off.remaining_seconds(now), bundle.back_off.remaining_seconds(now))
        if blocked_seconds:
            reason = bundle.back_off.reason or self._back_off.reason
            wait_seconds = self._parking.blocked(blocked_seconds, self._throughput.seconds_each, now)
            self._owner.settler.park(job, wait_seconds, reason)
            return
        if not self.backlog.depth:
            self._throughput.begin(now)
        self.backlog.add(bundle, job)

    def put_back(self, job: Job) -> None:
        """Take a delivery again whose connection broke before the message was sent."""
        job.quick_retries += 1
        self.wait_again(job)

    def wait_again(self, job: Job) -> None:
        """Let a delivery wait that was not sent, unless its partition goes to another process."""
        if not job.partition.leaving:
            self.backlog.add(self.backlog.bundle(job.hop), job, front=True)
            self._soon(0.0)

    def park(self, job: Job, reason: str) -> None:
        """Take a waiting delivery out and keep it in the log for about as long as the backlog needs."""
        self.backlog.take_out(job)
        self._owner.settler.park(job, self.parking_seconds(), reason)

    def park_half(self, reason: str) -> int:
        """Make room: park the younger half of what waits; returns how many."""
        victims = self.backlog.youngest_half()
        for job in victims:
            self.park(job, reason)
        return len(victims)

    # how busy it is

    def estimated_wait_seconds(self) -> float:
        """How long a delivery that comes now would wait."""
        return self._throughput.wait_seconds(self.backlog.depth, self._loop.time())

    def limits_used(self) -> float:
        """How much of what the receiver allows is in use, from 0 to 1: of the rate or of the connections, whichever is more."""
        busy = len(self.connections) - len(self._idle)
        return max(self._throughput.share_used, min(1.0, busy / self.limits.connections))

    def parking_seconds(self) -> float:
        """How long until the site can take one more, those parked before it counted."""
        each_seconds = self._throughput.seconds_each
        return self._parking.behind(self.backlog.depth * each_seconds, each_seconds, self._loop.time())

    # work goes out

    def next_job(self, connection: Connection) -> Job | None:
        """What this connection does next; None: nothing now, or no more at all (`is_used_up`)."""
        if not self.backlog.depth or self.is_used_up(connection) or self._is_stale():
            return None
        now = self._loop.time()
        wait = self._messages.wait_seconds(now)
        if wait > 0:
            self._soon(wait)
            return None
        job = self._pop(connection)
        if job is not None:
            self._messages.take(now)
        return job

    def is_used_up(self, connection: Connection) -> bool:
        """Whether the connection has sent its share."""
        return self._stopping or connection.used >= self.limits.messages_per_connection

    def _pop(self, connection: Connection) -> Job | None:
        now = self.clock()
        while (job := self.backlog.pop_for(connection.bundle, connection.host)) is not None:
            if job.delivery.envelope.expires_at > now:
                return job
            self._owner.settler.expire(job)
        return None

    def went_idle(self, connection: Connection) -> None:
        """The connection waits for `assign`."""
        self._idle[connection] = None
        self.pump()

    def no_longer_idle(self, connection: Connection) -> None:
        """It was woken."""
        self._idle.pop(connection, None)

    def idle_seconds(self) -> float:
        """How long a connection may wait for work: shorter when this process holds more than its share of the slots."""
        shares = self._owner.shares
        if shares > 1 and len(self.connections) > self.limits.connections // shares:
            return min(CROWDED_IDLE_SECONDS, self.timeouts.idle_seconds)
        return self.timeouts.idle_seconds

    def pump(self) -> None:
        """Give waiting deliveries to idle connections, and open connections for the rest."""
        if not self.backlog.depth or self._is_stale():
            return
        while self._idle and self.backlog.depth and not self._stopping:
            now = self._loop.time()
            wait = self._messages.wait_seconds(now)
            if wait > 0:
                self._soon(wait)
                return
            for connection in reversed(self._idle):
                job = self._pop(connection)
                if job is not None:
                    break
            else:
                break
            self._messages.take(now)
            del self._idle[connection]
            connection.assign(job)
        if self.backlog.depth and not self._stopping:
            self._open_more()

    def _soon(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.pump()

    # connections

    def _open_more(self) -> None:
        now = self._loop.time()
        if now >= self._careful_until:
            self._allowed = self.limits.connections
        established = sum(connection.session is not None for connection in self.connections)
        for bundle in list(self.backlog.waiting):
            while bundle.opening < (bundle.depth if established else min(bundle.depth, FIRST_CONNECTIONS)):
                if len(self.connections) >= self._allowed:
                    self._retire_idle()
                    return
                wait = self._openings.wait_seconds(now)
                if wait > 0:
                    self._soon(wait)
                    return
                slot = self._owner.slots.acquire(f"{self.source}|{self.site}|{self.key[2]}", self.limits.connections)
                if slot is None:
                    self._soon(SLOT_RETRY_SECONDS)
                    return
                self._openings.take(now)
                connection = Connection(self, bundle, slot, self._owner.blobs)
                self.connections.add(connection)
                bundle.opening += 1
                self._owner.connections_changed(self, 1)
                connection.task = asyncio.create_task(connection.run(), name=f"smtp {self.site}")

    def _retire_idle(self) -> None:
        """All connections are in use by count, and an idle one serves nothing that waits: end it."""
        if self._idle:
            connection = next(iter(self._idle))
            del self._idle[connection]
            connection.stop(now=False)

    async def _wait_for_connection(self) -> None:
        now = self._loop.time()
        wait = self._openings.wait_seconds(now)
        self._openings.take(now + wait)  # the turn is taken before the wait, so that no other takes it
        await asyncio.sleep(wait)

    async def open_session(self, connection: Connection) -> None:
        """Open the connection's session, or draw the consequences of not being able to."""
        bundle = connection.bundle
        started_at, start = self.clock(), self._loop.time()
        try:
            connection.session = await self._opening.open(bundle.hop)
        except Unreachable as error:
            target = error.target
            attempt = AttemptContext(
                started_at,
                self._loop.time() - start,
                target.host if target else "",
                target.address if target else "",
            )
            await self._unreachable(connection, error.failure, attempt)
        except SourceMismatch as error:
            self._owner.source_failed(self.source, str(error))
            self._block(bundle, f"the source address {self.source} cannot be used")
        finally:
            bundle.opening -= 1
        if connection.session is not None:
            self._soon(0.0)

    async def _unreachable(self, connection: Connection, failure: Failure, attempt: AttemptContext) -> None:
        bundle = connection.bundle
        if any(other.session is not None and other.host in bundle.names for other in self.connections):
            self._allowed = max(1, sum(other.session is not None for other in self.connections))
            self._careful_until = self._loop.time() + CAUTION_SECONDS
            LOG.info("fewer-connections", site=self.site, connections=self._allowed, reason=str(failure.reply))
            return
        if isinstance(failure, PermanentFailure):
            for job in self.backlog.drain(bundle):
                await self._record(job, failure, attempt)
            return
        first = self.backlog.pop(bundle)
        delay = self._block(bundle, str(failure.reply))
        if first is not None:
            await self._record(first, failure, attempt._replace(site_delay_seconds=delay))

    async def _record(self, job: Job, failure: Failure, attempt: AttemptContext) -> None:
        if job.delivery.envelope.expires_at <= self.clock() and isinstance(failure, TemporaryFailure):
            self._owner.settler.expire(job)
            return
        results = [*job.results, *(RecipientResult(recipient, failure, None) for recipient in job.pending)]
        settler = self._owner.settler
        unfinished = settler.settle(job, results, attempt, await settler.original(job, results))
        if unfinished is not None:
            await unfinished

    def connection_closed(self, connection: Connection) -> None:
        """It is gone, and its slot is free."""
        self._idle.pop(connection, None)
        self.connections.discard(connection)
        self._owner.connections_changed(self, -1)
        if self._stopping:
            return
        if self.backlog.depth:
            self._soon(0.0)
        elif not self.connections:
            self._owner.queue_is_idle(self)

    # results

    async def settle(self, job: Job, results: Sequence[RecipientResult], attempt: AttemptContext) -> None:
        """Record an attempt, and leave the site alone if it says so."""
        now = self._loop.time()
        self._throughput.finish(now)
        failed = delivered = False
        for result in results:
            failure = result.failure
            if failure is None:
                delivered = True
                continue
            failed = True
            if isinstance(failure, TemporaryFailure) and failure.scope is Scope.SITE:
                attempt = attempt._replace(site_delay_seconds=self._leave_alone(failure.reply))
                break
        else:
            if delivered:
                self._back_off.worked(now)
        settler = self._owner.settler
        unfinished = settler.settle(job, results, attempt, await settler.original(job, results) if failed else None)
        if unfinished is not None:
            await unfinished

    def _leave_alone(self, reply: Reply) -> float:
        """Leave the whole site alone for a while; what waits is parked. Returns for how long, in seconds."""
        now = self._loop.time()
        begun = self._back_off.begin(now, f"{self.site} asked to be left alone: {reply}")
        delay = self._back_off.remaining_seconds(now)
        if begun:
            LOG.info("site-backed-off", site=self.site, source=self.source, seconds=delay, reply=str(reply))
        for bundle in list(self.backlog.waiting):
            self._park_all(bundle, delay, self._back_off.reason)
        return delay

    def _block(self, bundle: Bundle, reason: str) -> float:
        """Leave one set of hosts alone for a while; what waits for it is parked. Returns for how long, in seconds."""
        now = self._loop.time()
        begun = bundle.back_off.begin(now, reason)
        delay = bundle.back_off.remaining_seconds(now)
        if begun:
            LOG.info("hosts-backed-off", site=self.site, source=self.source, seconds=delay, reason=reason)
        self._park_all(bundle, delay, reason)
        return delay

    def _park_all(self, bundle: Bundle, seconds: float, reason: str) -> None:
        now, each_seconds = self._loop.time(), self._throughput.seconds_each
        for job in self.backlog.drain(bundle):
            self._owner.settler.park(job, self._parking.blocked(seconds, each_seconds, now), reason)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether something is remembered: a back-off, or a level of it that has not passed."""
        now = self._loop.time()
        bundles = self.backlog.bundles.values()
        return self._back_off.is_remembered(now) or any(bundle.back_off.is_remembered(now) for bundle in bundles)

    def stop(self, *, now: bool) -> None:
        """Start nothing new; see Connection.stop."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.stop(now=now)
