"""One connection at work: it opens a session, takes deliveries of its site one after the other, and ends.

Owns a transaction from its content to the verdict on each recipient. Which delivery comes next, how many connections there are
and what a failure means for the site is decided by `site_queue`; how a session is opened is in `session`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import Counter

from postrail.core.records import Delivery, Recipient
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.settle import AttemptContext, RecipientResult
from postrail.core.smtp_commands import LocalProtocolError, Transaction, obstacle
from postrail.core.smtp_content import DotStuffer, stuffed
from postrail.core.smtp_events import ContentWanted, Outcome, Quit, TransactionOver
from postrail.core.smtp_states import State
from postrail.core.verdicts import Stage, judge
from postrail.log.interface import LogError
from postrail.sender.deadline import Deadline
from postrail.sender.job import Job
from postrail.sender.session import Session
from postrail.sender.slots import Slot
from postrail.sender.wire import ConnectionBroken, TimedOut, Wire
from postrail.shell import logs
from postrail.shell.blobs import BlobDamaged, BlobStore, BlobUnavailable

if TYPE_CHECKING:
    from postrail.sender.backlog import Bundle
    from postrail.sender.site_queue import SiteQueue

LOG = logs.logger("sender")

# Transactions that were broken off before their final dot, because the log was not heard of for so long that another process may
# own the delivery. It is sent by whoever owns it. Alert on any increase: this process or its way to the log is stuck at times.
STALE = Counter("postrail_sender_stale_transactions_total", "Transactions broken off because ownership was in doubt.")

DOT_APART_BYTES = 64 << 10
"""Where the log is shared, the final dot of a larger content is written when all before it has left this process."""
_DOT = b".\r\n"
MAX_QUICK_RETRIES = 2
_PAST_THE_DOT = frozenset({State.OUTCOME})


class _Content(NamedTuple):
    """What is sent after 354: all at once, or a first piece and the rest from the blob store."""

    data: bytes
    size_bytes: int
    stuffer: DotStuffer | None = None


class _Unreadable(Exception):
    """The body cannot be had now."""


class _Stale(Exception):
    """Another process may own the delivery by now."""


class Connection:
    """One connection of a site's queue.

    Attributes:
        bundle: for whose hosts it was opened; it may serve others with the same host.
        used: transactions so far.
    """

    __slots__ = (
        "_blobs",
        "_idle",
        "_idle_deadline",
        "_queue",
        "_slot",
        "_stopping",
        "bundle",
        "session",
        "task",
        "used",
    )

    def __init__(self, queue: SiteQueue, bundle: Bundle, slot: Slot, blobs: BlobStore) -> None:
        self.bundle = bundle
        self.session: Session | None = None
        self.used = 0
        self.task: asyncio.Task[None] | None = None
        self._queue = queue
        self._slot = slot
        self._blobs = blobs
        self._idle: asyncio.Future[Job | None] | None = None
        self._idle_deadline = Deadline(asyncio.get_running_loop(), self._closed_while_idle)
        self._stopping = False

    @property
    def host(self) -> str:
        """The host that it is connected to; "" for the relay of last resort, which serves its own bundle only."""
        session = self.session
        return "" if session is None or session.target.fallback else session.target.host

    async def run(self) -> None:
        """Open, serve, end. What goes wrong is told to the queue."""
        try:
            await self._queue.open_session(self)
            if self.session is not None:
                await self._serve(self.session)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except Exception:
            LOG.exception("connection-failed", site=self._queue.site)
        finally:
            if self.session is not None:
                self.session.wire.abort() if self.session.machine.state is not State.CLOSED else self.session.wire.close()
            self._idle_deadline.cancel()
            self._slot.release()
            self._queue.connection_closed(self)

    def assign(self, job: Job) -> None:
        """Wake an idle connection with work."""
        assert self._idle is not None
        self._idle.set_result(job)
        self._idle = None

    def stop(self, *, now: bool) -> None:
        """Take no more work. `now`: give up what is not past its final dot."""
        self._stopping = True
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None
            self._queue.no_longer_idle(self)
        elif now and self.task is not None:
            if self.session is None:
                self.task.cancel()
            elif self.session.machine.state not in _PAST_THE_DOT:
                self.session.wire.abort()

    def give_up(self) -> None:
        """The drain time is over: what was not answered is ambiguous."""
        if self.session is not None:
            self.session.wire.abort()

    async def _serve(self, session: Session) -> None:
        session.wire.on_idle_close = self._closed_while_idle
        reusable = True
        while reusable and not self._stopping:
            job = self._queue.next_job(self)
            if job is None:
                if self._queue.is_used_up(self):
                    break
                job = await self._wait_for_work()
                if job is None:
                    break
            self.used += 1
            reusable = await self._deliver(session, job)
        if session.wire.broken is None and session.machine.state is State.READY:
            with suppress(ConnectionBroken, TimeoutError):
                async with asyncio.timeout(self._queue.timeouts.quit_seconds):
                    session.wire.send(Quit())
                    await session.wire.event()
        session.wire.close()

    async def _wait_for_work(self) -> Job | None:
        loop = asyncio.get_running_loop()
        idle: asyncio.Future[Job | None] = loop.create_future()
        self._idle = idle
        if self.session is not None and self.session.wire.broken is not None:
            self._idle = None
            return None
        self._idle_deadline.set(self._queue.idle_seconds())
        self._queue.went_idle(self)
        try:
            return await idle
        finally:
            self._idle_deadline.clear()
            self._queue.no_longer_idle(self)

    def _closed_while_idle(self) -> None:
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None
            self._queue.no_longer_idle(self)  # at once: until the task runs, the queue could assign to it

    async def _deliver(self, session: Session, job: Job) -> bool:
        """One transaction; True when the session can take another."""
        started_at, start = self._queue.clock(), asyncio.get_running_loop().time()
        recipients = job.pending
        over: TransactionOver | None = None
        try:
            content = await self._content(job)
            transaction = _transaction(job.delivery, recipients, content.size_bytes)
            refusal: Failure | None = obstacle(transaction, session.machine.capabilities)
            if refusal is None:
                over = await self._transact(session, job, transaction, content)
        except LocalProtocolError as error:
            refusal = _refused(554, "5.6.0", f"the message cannot be sent: {error}")
        except _Unreadable as error:
            LOG.error("body-unreadable", message_id=job.delivery.envelope.message_id, reason=str(error))
            refusal = TemporaryFailure(Reply(451, "4.3.0", str(error)), Scope.MESSAGE, internal=True)
        except _Stale:
            STALE.inc()
            LOG.warning(
                "not-sent", message_id=job.delivery.envelope.message_id, reason="the log was not heard of for long"
            )
            session.wire.lost()
            self._queue.wait_again(job)
            return False
        attempt = AttemptContext(
            started_at,
            asyncio.get_running_loop().time() - start,
            session.target.host,
            session.target.address,
            session.tls,
            remote_supports_dsn=session.machine.capabilities.dsn,
        )
        if over is None:
            assert refusal is not None
            results = [*job.results, *(RecipientResult(recipient, refusal, None) for recipient in recipients)]
            await self._queue.settle(job, results, attempt)
            return session.wire.broken is None and session.machine.state is State.READY
        return await self._conclude(session, job, recipients, over, attempt)

    async def _transact(
        self, session: Session, job: Job, transaction: Transaction, content: _Content
    ) -> TransactionOver:
        """The dialogue of one transaction. LocalProtocolError and _Unreadable close the session where it is under way."""
        wire = session.wire
        try:
            wire.send(transaction)
            event = await wire.event()
            if isinstance(event, ContentWanted):
                await self._send_content(wire, job, content)
                event = await wire.event()
        except ConnectionBroken:
            over = session.machine.lost()
            assert over is not None
            wire.abort()
            return over
        except (LocalProtocolError, _Unreadable):
            if session.machine.state is not State.READY:
                wire.lost()
            raise
        assert isinstance(event, TransactionOver)
        return event

    async def _send_content(self, wire: Wire, job: Job, content: _Content) -> None:
        if content.stuffer is None:
            data = content.data
            if len(data) > DOT_APART_BYTES and job.partition.ownership is not None:
                wire.write(data[: -len(_DOT)])  # ours to send when the dot leaves this process, not when it is buffered
                if not await wire.flushed():
                    return
                data = _DOT
            self._send_dot(wire, job, data)
            return
        wire.write(content.data)
        blob = job.delivery.blob
        assert blob is not None
        try:
            async for chunk in _closing(self._blobs.chunks(blob)):
                wire.write(content.stuffer.feed(chunk))
                if not await wire.writable():
                    return
        except (BlobDamaged, BlobUnavailable) as error:
            raise _Unreadable(str(error)) from error
        if await wire.flushed():
            self._send_dot(wire, job, content.stuffer.finish())

    def _send_dot(self, wire: Wire, job: Job, end: bytes) -> None:
        """Write the end of the content, final dot included: from here on the receiver may have the message."""
        if wire.broken is not None:
            raise wire.broken  # before the dot: nothing is ambiguous
        ownership = job.partition.ownership
        if ownership is not None and ownership.lease_seconds() <= 0:
            raise _Stale
        wire.machine.end_content()
        wire.write(end)

    async def _conclude(
        self,
        session: Session,
        job: Job,
        recipients: Sequence[Recipient],
        over: TransactionOver,
        attempt: AttemptContext,
    ) -> bool:
        broken = session.wire.broken
        results = list(job.results)
        undecided: list[Recipient] = []
        again: list[tuple[Recipient, Failure]] = []
        for recipient, outcome in zip(recipients, over.outcomes, strict=True):
            if outcome is None:
                undecided.append(recipient)
                continue
            failure = _failure(outcome)
            if failure is not None and self._is_stale(outcome, failure):
                again.append((recipient, failure))
            else:
                results.append(RecipientResult(recipient, failure, outcome.reply))
        if self._stopping and not over.ambiguous and (undecided or again) and not _any_taken(results):
            return False  # nothing is recorded: the next owner sends it
        may_repeat = job.quick_retries < MAX_QUICK_RETRIES and not self._stopping and not isinstance(broken, TimedOut)
        if (undecided or again) and not over.ambiguous and may_repeat:
            job.results = results
            self._queue.put_back(job)
            return False
        if undecided:
            lost = _lost(broken, ambiguous=over.ambiguous)
            results += [RecipientResult(recipient, lost, None, over.ambiguous) for recipient in undecided]
        results += [RecipientResult(recipient, failure, None) for recipient, failure in again]
        await self._queue.settle(job, results, attempt)
        if session.machine.state is not State.READY:
            return False
        failures = [result.failure for result in results if result.failure is not None]
        return not any(failure.scope is Scope.SESSION for failure in failures)

    def _is_stale(self, outcome: Outcome, failure: Failure) -> bool:
        """Whether a reused session ended itself before it took the message: another one will do."""
        return (
            outcome.reply.code == 421
            and outcome.stage is not Stage.CONTENT
            and failure.scope is Scope.SESSION
            and self.used > 1
        )

    async def _content(self, job: Job) -> _Content:
        delivery = job.delivery
        header_block = delivery.header_block
        if delivery.blob is not None:
            stuffer = DotStuffer()
            head = stuffer.feed(header_block + b"\r\n")
            return _Content(head, len(header_block) + 2 + delivery.blob.size_bytes, stuffer)
        body: bytes | None = b""
        if job.body is not None:
            body = job.body.in_memory
            if body is None:
                try:
                    body = await job.body.load()
                except LogError as error:
                    raise _Unreadable(f"the body cannot be read from the log: {error}") from error
        assert body is not None
        return _Content(stuffed(header_block, b"\r\n", body), len(header_block) + 2 + len(body))


def _transaction(delivery: Delivery, recipients: tuple[Recipient, ...], size_bytes: int) -> Transaction:
    envelope = delivery.envelope
    international = envelope.smtputf8 and not (
        delivery.header_block.isascii()
        and envelope.reverse_path.isascii()
        and all(recipient.address.isascii() for recipient in recipients)
    )
    return Transaction(
        envelope.reverse_path,
        recipients,
        size_bytes,
        envelope.eight_bit,
        international,
        envelope.ret,
        envelope.envid,
    )


def _failure(outcome: Outcome) -> Failure | None:
    if outcome.stage is Stage.CONTENT and 200 <= outcome.reply.code < 300:
        return None
    return judge(outcome.reply, outcome.stage)


def _any_taken(results: Sequence[RecipientResult]) -> bool:
    return any(result.failure is None for result in results)


def _lost(broken: ConnectionBroken | None, *, ambiguous: bool) -> TemporaryFailure:
    where = "after the final dot" if ambiguous else "before the message was sent"
    return TemporaryFailure(
        Reply(451, "4.4.2", f"{broken or 'the session ended'}, {where}"), Scope.SESSION, internal=True
    )


def _refused(code: int, enhanced: str, text: str) -> PermanentFailure:
    return PermanentFailure(Reply(code, enhanced, text), Scope.MESSAGE, internal=True)


async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks; the iterator is closed however the reading ends."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
