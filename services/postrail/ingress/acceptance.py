"""From content complete to durable: the last checks, the edits of the header block, the records, the append.

Owns the order that the promise "250 means durable" needs: blob durable, then the record and its event in one append, then
the reply. Never talks SMTP; it raises `Refused`. Neighbours: session calls it, `core.headers_in` edits.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from postrail.core import headers_in, refusals, topics
from postrail.core.config import SigningConfig
from postrail.core.dkim_domains import signing_domain_for
from postrail.core.esmtp_parameters import MailParameters
from postrail.core.headers_in import SubmittedHeader, Trace
from postrail.core.identity import GROUP_CHARACTERS, RANDOM_CHARACTERS, message_id, random_characters
from postrail.core.records import Envelope, Event, EventType, Lane, Message, MessageId, Recipient
from postrail.core.refusals import Reason, Refused
from postrail.core.submission import Submitter, check_author, stream_of
from postrail.ingress import metrics
from postrail.ingress.content import Received
from postrail.log.interface import Append, LogError, LogFull, TopicPartition
from postrail.shell import logs
from postrail.shell.context import Context
from postrail.wire import codec

LOG = logs.logger("ingress")
_LANES: Final = {"urgent": Lane.URGENT, "bulk": Lane.BULK}
_NEXT_GROUP: Final = "signing"  # whose progress says how much waits
_MAX_KNOWN_DOMAINS: Final = 10_000
_POOL_IDS: Final = 256
_GROUP_MESSAGES: Final = 16
_GROUP_SECONDS: Final = 0.05
_LOOK_AGAIN_SECONDS: Final = 5.0


class Transaction(NamedTuple):
    """A mail transaction at its end: who sends what to whom, and what the Received field says of the session."""

    submitter: Submitter
    reverse_path: str
    recipients: tuple[Recipient, ...]
    parameters: MailParameters
    eight_bit: bool
    trace: Trace
    client: str


class Acceptance:
    """Takes messages into the log."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config = context.config
        self._accepted = {name: metrics.ACCEPTED.labels(name) for name in self._config.streams}
        self._keys = SigningKeys(self._config.signing)
        self._newest: dict[tuple[str, int], int] = {}
        self._random = RandomCharacters()

    async def take(self, transaction: Transaction, content: Received) -> MessageId:
        """Store the message; when this returns it is durable.

        Raises:
            Refused: the message is not taken, and nothing of it is stored.
        """
        now = self._context.clock()
        try:
            header = headers_in.read(content.header_block)
            check_author(header.author_domains, transaction.submitter)
            stream = stream_of(header.stream, transaction.submitter)
            self._keys.check(header.author_domains[0], now)
        except Refused:
            await self._discard(content)
            raise
        new_id = message_id(now, self._random.take(now))
        message = self._message(new_id, transaction, content, header, stream, now)
        started = perf_counter()
        await self._append(message, content)
        seconds = perf_counter() - started
        metrics.APPEND_SECONDS.observe(seconds)
        self._accepted[stream].inc()
        metrics.ACCEPTED_BYTES.inc(message.envelope.size_bytes)
        LOG.info(
            "accepted",
            message_id=new_id,
            submitter=message.envelope.submitter,
            stream=stream,
            client=transaction.client,
            reverse_path=transaction.reverse_path,
            recipients=len(transaction.recipients),
            size_bytes=message.envelope.size_bytes,
            header_message_id=message.envelope.header_message_id,
            append_seconds=round(seconds, 4),
        )
        return new_id

    def _message(
        self,
        message_id: MessageId,
        transaction: Transaction,
        content: Received,
        header: SubmittedHeader,
        stream: str,
        now: float,
    ) -> Message:
        recipients = transaction.recipients
        received = transaction.trace.field(message_id, recipients[0].address if len(recipients) == 1 else "", now)
        block, header_message_id = headers_in.build(header, received, message_id, self._config.hostname, now)
        kind = self._config.streams[stream]
        parameters = transaction.parameters
        envelope = Envelope(
            message_id=message_id,
            reverse_path=transaction.reverse_path,
            recipients=recipients,
            submitter=transaction.submitter.config.name,
            stream=stream,
            lane=_LANES[kind.lane],
            received_at=now,
            expires_at=now + kind.lifetime_seconds,
            size_bytes=len(block) + 2 + content.body_bytes,
            eight_bit=transaction.eight_bit or not block.isascii(),
            smtputf8=parameters.smtputf8,
            ret=parameters.ret,
            envid=parameters.envid,
            tag=header.tag,
            metadata=header.metadata,
            header_message_id=header_message_id,
        )
        return Message(envelope, block, content.blob)

    async def _append(self, message: Message, content: Received) -> None:
        envelope = message.envelope
        key = envelope.message_id.encode()
        event = Event(
            type=EventType.ACCEPTED,
            at=envelope.received_at,
            message_id=envelope.message_id,
            recipients=tuple([recipient.address for recipient in envelope.recipients]),
            submitter=envelope.submitter,
            stream=envelope.stream,
            tag=envelope.tag,
            header_message_id=envelope.header_message_id,
            reverse_path=envelope.reverse_path,
            size_bytes=envelope.size_bytes,
        )
        try:
            positions = await self._context.log.append(
                [
                    Append(
                        topics.laned(topics.ACCEPTED, envelope.lane),
                        key,
                        codec.encode_message(message),
                        content.body,
                        message,
                    ),
                    Append(topics.EVENTS, key, codec.encode_event(event)),
                ]
            )
        except LogFull as error:
            await self._discard(content)
            raise refusals.storage_full() from error
        except LogError as error:
            # A blob stays until it is old: whether the record was stored may not be known.
            raise refusals.log_unavailable() from error

        if positions:
            self._newest[positions[0][:2]] = positions[0].offset

    async def waiting(self) -> int:
        """Messages that this worker accepted and signing has not finished; those of before its start once mail comes in.

        Raises:
            LogError: the log cannot tell.
        """
        if not self._newest:
            return 0
        finished = await self._context.log.committed(_NEXT_GROUP, topics.lanes(topics.ACCEPTED))
        return sum(
            offset + 1 - (progress.low if (progress := finished.get(TopicPartition(*where))) else 0)
            for where, offset in self._newest.items()
        )

    async def _discard(self, content: Received) -> None:
        if content.blob is not None:
            await self._context.blobs.discard(content.blob)


class RandomCharacters:
    """The random part of message ids, from the kernel's generator in one call for many: a call costs more than an id.

    Messages that come in together are a group: their ids have the first characters in common, and their records stay together
    (`core.identity.group_of`). Groups are small and short, so that all who share the work get as much of it.
    """

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0
        self._group = ""
        self._left = 0
        self._since = 0.0

    def take(self, now: float) -> str:
        """The characters for one id at Unix time `now`; never the same twice."""
        characters = self._draw()
        if not self._left or not 0 <= now - self._since < _GROUP_SECONDS:
            self._group, self._left, self._since = characters[:GROUP_CHARACTERS], _GROUP_MESSAGES, now
        self._left -= 1
        return self._group + characters[GROUP_CHARACTERS:]

    def _draw(self) -> str:
        start = self._at
        end = self._at = start + RANDOM_CHARACTERS
        if end > len(self._pool):
            self._pool = random_characters(os.urandom(_POOL_IDS * RANDOM_CHARACTERS))
            start, end = 0, RANDOM_CHARACTERS
            self._at = end
        return self._pool[start:end]


class SigningKeys:
    """Whether a From domain can be signed for; looked up on disk at most once in `key_reload_seconds` a domain."""

    def __init__(self, config: SigningConfig) -> None:
        self._config = config
        self._known: dict[str, tuple[float, str]] = {}

    def check(self, domain: str, now: float) -> None:
        """Raise Refused 451 4.7.5 where mail of this domain would have to wait for a key."""
        valid_until, problem = self._known.get(domain, (0.0, ""))
        if now >= valid_until:
            if len(self._known) >= _MAX_KNOWN_DOMAINS:
                self._known.clear()
            problem = self._look(domain)
            keep_seconds = self._config.key_reload_seconds
            self._known[domain] = (now + (min(_LOOK_AGAIN_SECONDS, keep_seconds) if problem else keep_seconds), problem)
        if problem:
            raise Refused(Reason.SIGNING_KEY, 451, "4.7.5", problem)

    def _look(self, domain: str) -> str:
        signing_domain = signing_domain_for(domain, self._config.domains)
        if signing_domain is None:
            return f"There is no DKIM key for {domain}; try again when it has one" if self._config.require else ""
        for key in self._config.domains[signing_domain].keys:
            if not os.access(Path(key.key_file), os.R_OK):
                LOG.error(
                    "signing_key_unreadable",
                    domain=signing_domain,
                    file=key.key_file,
                    advice="make it readable, or make one with: postrail dkim generate",
                )
                return f"The DKIM key {key.selector} of {signing_domain} cannot be read; try again later"
        return ""
