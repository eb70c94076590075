"""The transfer of content: DATA and BDAT (RFC 5321 §4.1.1.4, RFC 3030), and the transaction that they end.

Owns the state of the mail transaction. The readers of `core.data_reader` say where content ends and what of it is refused,
`content` keeps it, `acceptance` takes it. Its neighbour `session` has the other commands.
"""

# ruff: noqa: N802  # the methods are named as aiosmtpd names its own

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

from postrail.core import refusals
from postrail.core.data_reader import ChunkReader, ContentProblem, DataReader
from postrail.core.esmtp_parameters import MailParameters
from postrail.core.headers_in import Trace, protocol_name
from postrail.core.ingress_config import ListenerKind
from postrail.core.records import Recipient
from postrail.core.refusals import Reason, Refused
from postrail.core.submission import Submitter
from postrail.ingress.acceptance import Transaction
from postrail.ingress.authentication import Authentication
from postrail.ingress.content import Content
from postrail.ingress.reception import Door
from postrail.shell import logs

LOG = logs.logger("ingress")
_HOPELESS: Final = 4  # times the limit: content is not read any further only to refuse it
_CHUNK: Final = re.compile(r"(\d{1,18})(?:[ \t]+(LAST))?[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(slots=True)
class OpenTransaction:
    """From MAIL to the end of content. `recipients` has each address once.

    `content` and `deadline` are set from DATA or the first BDAT on, `chunks` from the latter.
    """

    submitter: Submitter
    reverse_path: str
    parameters: MailParameters
    recipients: dict[tuple[str, str], Recipient] = field(default_factory=dict)
    content: Content | None = None
    chunks: ChunkReader | None = None
    deadline: float = 0.0


class Transfer(Authentication):
    """The mail transaction and its content."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self.messages = 0
        self.transaction: OpenTransaction | None = None
        self.incoming: DataReader | None = None

    async def end_transaction(self) -> None:
        """Forget it; content that was not stored leaves nothing behind."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None and transaction.content is not None:
            await transaction.content.drop()

    def require_submitter(self) -> Submitter:
        """As whom the client submits; raises Refused 530 5.7.0 or 550 5.7.1."""
        if self.submitter is not None:
            return self.submitter
        if self.door.kind is ListenerKind.TRUSTED:
            raise refusals.relay_denied("Relaying denied: your address may not submit here")
        if not self.is_tls:
            raise refusals.auth_required("Say STARTTLS, then authenticate")
        raise refusals.auth_required()

    def require_transaction(self) -> OpenTransaction:
        """The transaction that is open; raises Refused 503 5.5.1, or what `require_submitter` raises."""
        if self.transaction is None:
            self.require_submitter()
            raise refusals.bad_sequence("Say MAIL first")
        return self.transaction

    def smtp_DATA(self, arg: str) -> None:
        if arg:
            raise refusals.syntax("DATA takes no argument", "5.5.4")
        transaction = self._require_recipients()
        if transaction.content is not None:
            raise refusals.bad_sequence("BDAT has begun; end it with BDAT LAST")
        self.say(b"354 End data with <CR><LF>.<CR><LF>")
        limits = self.desk.limits
        self.incoming = DataReader(limits.max_message_bytes, limits.max_line_bytes)
        transaction.content = self.desk.new_content()
        transaction.deadline = self.loop.time() + limits.message_timeout_seconds

    def content_deadline(self) -> float:
        """When more content must have come."""
        assert self.transaction is not None
        return min(self.transaction.deadline, self.loop.time() + self.desk.limits.data_timeout_seconds)

    def receive(self, reader: DataReader) -> Awaitable[None] | None:
        """Take what has come of the content of DATA; returns what must be awaited before more of it."""
        transaction = self.transaction
        assert transaction is not None
        assert transaction.content is not None
        content = transaction.content
        piece = reader.feed(self.take_input())
        spills = bool(piece) and content.add(piece)
        if reader.rest is not None:
            self.incoming = None
            self.put_back(reader.rest)
            return self._finish(transaction, content, reader, spills=spills)
        if spills:
            return content.spill()
        if reader.problem is not None:
            self._stop_hopeless(reader.size_bytes)
            return content.drop()
        return None

    async def _finish(
        self, transaction: OpenTransaction, content: Content, reader: DataReader | ChunkReader, *, spills: bool
    ) -> None:
        try:
            if spills:
                await content.spill()
            await self._accept(transaction, content, reader)
        finally:
            if content.is_in_memory:
                content.forget()
                self.transaction = None
            else:
                await self.end_transaction()

    async def smtp_BDAT(self, arg: str) -> None:
        """RFC 3030: exactly so many octets follow the command; they are read even when it is refused."""
        match = _CHUNK.fullmatch(arg)
        if match is None:
            # Where the chunk ends cannot be known, so neither where the next command begins.
            raise Refused(Reason.SYNTAX, 501, "5.5.4", "Syntax: BDAT size [LAST]; closing", closes=True)
        size, is_last = int(match[1]), match[2] is not None
        limits = self.desk.limits
        try:
            transaction = self._require_recipients()
        except Refused:
            await self._skip(size)
            raise
        if transaction.chunks is None or transaction.content is None:
            transaction.chunks = ChunkReader(limits.max_message_bytes, limits.max_line_bytes)
            transaction.content = self.desk.new_content()
            transaction.deadline = self.loop.time() + limits.message_timeout_seconds
        reader, content = transaction.chunks, transaction.content
        await self._chunk(size, transaction.deadline, reader, content)
        if is_last:
            ending = reader.finish()
            spills = bool(ending) and content.add(ending)
            await self._finish(transaction, content, reader, spills=spills)
        elif reader.problem is None and content.failure is None:
            self.say(b"250 2.0.0 %d octets received" % size)
        else:
            await self._finish(transaction, content, reader, spills=False)

    async def _chunk(self, size: int, deadline: float, reader: ChunkReader, content: Content) -> None:
        left = size
        while left:
            data = await self.take(min(deadline, self.loop.time() + self.desk.limits.data_timeout_seconds))
            if len(data) > left:
                self.put_back(data[left:])
                data = data[:left]
            left -= len(data)
            piece = reader.feed(data)
            if piece and content.add(piece):
                await content.spill()
            elif reader.problem is not None:
                await content.drop()
                self._stop_hopeless(reader.size_bytes)

    async def _skip(self, size: int) -> None:
        """Pass over a refused chunk; closes where it is larger than any message may be."""
        self._stop_hopeless(size)
        deadline = self.loop.time() + self.desk.limits.message_timeout_seconds
        while size:
            data = await self.take(deadline)
            if len(data) > size:
                self.put_back(data[size:])
                return
            size -= len(data)

    def _stop_hopeless(self, size_bytes: int) -> None:
        """Refused content is read to its end, so that the client hears the reply; but not for ever."""
        limit = self.desk.limits.max_message_bytes
        if size_bytes > _HOPELESS * limit:
            refused = refusals.too_large(limit)
            refused.closes = True
            raise refused

    def _require_recipients(self) -> OpenTransaction:
        transaction = self.require_transaction()
        if not transaction.recipients:
            raise refusals.bad_sequence("No valid recipients; say RCPT first")
        return transaction

    async def _accept(self, open_: OpenTransaction, content: Content, reader: DataReader | ChunkReader) -> None:
        if reader.problem is not None:
            raise _content_refused(reader.problem, self.desk.limits.max_message_bytes, self.desk.limits.max_line_bytes)
        received = await content.finish()
        transaction = Transaction(
            open_.submitter,
            open_.reverse_path,
            tuple(open_.recipients.values()),
            open_.parameters,
            reader.eight_bit,
            self._trace(smtputf8=open_.parameters.smtputf8),
            self.client_address,
        )
        message_id = await self.desk.acceptance.take(transaction, received)
        self.messages += 1
        self.errors = 0
        self.say(b"250 2.0.0 Ok: queued as " + message_id.encode())
        if self.is_lost:
            LOG.warning("client_gone_after_accept", message_id=message_id, client=self.client_address)

    def _trace(self, *, smtputf8: bool) -> Trace:
        trace = self.traces.get(smtputf8)
        if trace is None:
            protocol = protocol_name(
                extended=self.extended, smtputf8=smtputf8, tls=self.is_tls, authenticated=self.is_authenticated
            )
            trace = self.traces[smtputf8] = Trace.of(
                self.helo_name, self.client_address, self.desk.hostname.decode(), protocol, self.tls_description()
            )
        return trace


def _content_refused(problem: ContentProblem, max_bytes: int, max_line_bytes: int) -> Refused:
    """RFC 5321 §4.3.2 allows 500 and 501 in answer to anything; RFC 3463 X.6.0 says that it is about the content."""
    match problem:
        case ContentProblem.TOO_LARGE:
            return refusals.too_large(max_bytes)
        case ContentProblem.LINE_TOO_LONG:
            return Refused(Reason.CONTENT, 500, "5.6.0", f"The message has a line longer than {max_line_bytes} bytes")
        case ContentProblem.NUL:
            return Refused(Reason.CONTENT, 500, "5.6.0", "The message contains NUL")
        case ContentProblem.BARE_CR_OR_LF:
            return Refused(Reason.CONTENT, 500, "5.6.0", "The message contains a bare CR or LF; lines end in CR LF")
