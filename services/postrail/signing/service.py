"""The signing service: accepted → signed.

Owns what is done to one accepted message: find the signing domain of its From field, add one DKIM-Signature for each of the
domain's keys, pass it on. Never passes a message unsigned because a key is missing: it is kept back, and asked again.
Neighbours: `postrail.core.dkim` and `postrail.signing.keys` (the signature), `postrail.shell.stage` (the loop).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from prometheus_client import Counter

from postrail.core import dkim, header_block, topics
from postrail.core.dkim_domains import signing_domain_for
from postrail.core.headers_in import author_domains
from postrail.core.records import Envelope, Message
from postrail.log.interface import Append, Body, Record
from postrail.shell import logs
from postrail.shell.blobs import BlobUnavailable
from postrail.shell.context import Context
from postrail.shell.stage import NotReady, Stage
from postrail.shell.stage_aside import Aside
from postrail.signing.keys import Key, KeyRing, KeyUnavailable
from postrail.wire.codec import encode_message
from postrail.wire.input import message_of

LOG = logs.logger("signing")

# result: signed or unsigned. Alert when unsigned grows and signing.require is true: only bounce messages may be unsigned.
MESSAGES = Counter("postrail_signing_messages_total", "Messages passed on by signing.", ["result"])
SIGNED = MESSAGES.labels("signed")
UNSIGNED = MESSAGES.labels("unsigned")
# No labels. Alert on any increase: mail waits because a DKIM key is missing or cannot be used; the log names the file.
KEY_FAILURES = Counter("postrail_signing_key_failures_total", "Times that a message had to wait for a usable DKIM key.")

GROUP = "signing"
BATCH = 100
KEY_RETRY_SECONDS = 60.0
ASIDE_RETRY_SECONDS = 300.0
"""Where many messages wait for a key: each try of one writes its record again."""
BLOB_RETRY_SECONDS = 15.0
BLOBS_AT_A_TIME = 4
LOADS_AT_A_TIME = 32


class SigningService:
    """Signs what was accepted."""

    name = "signing"

    def __init__(self, context: Context) -> None:
        self._config = context.config.signing
        self._blobs = context.blobs
        self._clock = context.clock
        self._keys = KeyRing(self._config, time.monotonic)
        self._blob_slots = asyncio.Semaphore(BLOBS_AT_A_TIME)
        self._load_slots = asyncio.Semaphore(LOADS_AT_A_TIME)
        self._stage = Stage(
            self.name, context, topics.lanes(topics.ACCEPTED), GROUP, self._handle, batch=BATCH, aside=topics.ASIDE
        )
        self._aside = Aside(self.name, context, topics.ASIDE, GROUP, self._handle, ASIDE_RETRY_SECONDS)

    async def start(self) -> None:
        """Take up work. A key that is missing now is no reason not to start: only its domain's mail waits."""
        for domain in self._config.domains:
            try:
                self._keys.keys(domain)
            except KeyUnavailable as error:
                LOG.warning("a DKIM key cannot be used; mail of this domain waits", domain=domain, reason=str(error))
        await self._stage.start()
        await self._aside.start()

    async def drain(self) -> None:
        """Finish the batch, commit, leave."""
        await asyncio.gather(self._stage.drain(), self._aside.drain())

    def problem(self) -> str | None:
        """Why signing makes no progress; None when all is well."""
        return self._stage.problem() or self._aside.problem()

    def _handle(self, record: Record) -> Sequence[Append] | Awaitable[Sequence[Append]]:
        message = message_of(record)
        if self._clock() >= message.envelope.expires_at:
            # It may have waited here for a key all its life. Routing sends it nowhere: it tells the sender (5.4.7).
            return [_signed(record, message, record.value)]
        fields = header_block.fields(message.header_block)
        domain = self._signing_domain(message.envelope, fields)
        if domain is None:
            UNSIGNED.inc()
            return [_signed(record, message, record.value)]
        # Before the body is read: a message without a key costs nothing more.
        keys = self._keys_of(domain)
        if message.blob is not None:
            return self._sign_blob(record, message, fields, domain)
        content = record.body.in_memory if record.body is not None else b""
        if content is None and record.body is not None:
            return self._sign_loaded(record, message, fields, domain, record.body)
        return [self._sign(record, message, fields, domain, keys, dkim.body_hash(content or b""))]

    def _signing_domain(self, envelope: Envelope, fields: list[header_block.Field]) -> str | None:
        """The domain that signs, or None where the message may go unsigned.

        Several authors: the first one's domain signs. Postrail's own messages (DSNs) go unsigned where the host name has
        no key: nobody would ever add one for them, and a bounce must not wait for ever.

        Raises:
            NotReady: there is no key for this domain, and it may not go unsigned.
            ValueError: no From field; submission refuses such a message, so this is no message of ours.
        """
        author = next((field for field in fields if field.name == b"from"), None)
        if author is None:
            raise ValueError("the message has no From field")
        from_domain = author_domains(author.value)[0]
        domain = signing_domain_for(from_domain, self._config.domains)
        if domain is not None or not self._config.require or not (envelope.submitter or envelope.reverse_path):
            return domain
        KEY_FAILURES.inc()
        raise NotReady(
            KEY_RETRY_SECONDS,
            f"no DKIM key is configured for the From domain {from_domain}: add it under signing.domains and restart",
        )

    def _keys_of(self, domain: str) -> tuple[Key, ...]:
        try:
            return self._keys.keys(domain)
        except KeyUnavailable as error:
            KEY_FAILURES.inc()
            raise NotReady(KEY_RETRY_SECONDS, str(error)) from error

    async def _sign_loaded(
        self, record: Record, message: Message, fields: list[header_block.Field], domain: str, body: Body
    ) -> Sequence[Append]:
        async with self._load_slots:
            digest = dkim.body_hash(await body.load())
        return [self._sign(record, message, fields, domain, self._keys_of(domain), digest)]

    async def _sign_blob(
        self, record: Record, message: Message, fields: list[header_block.Field], domain: str
    ) -> Sequence[Append]:
        assert message.blob is not None
        hasher = dkim.BodyHasher()
        try:
            async with self._blob_slots:
                async for chunk in self._blobs.chunks(message.blob):
                    hasher.update(chunk)
                    await asyncio.sleep(0)
        except BlobUnavailable as error:
            raise NotReady(BLOB_RETRY_SECONDS, str(error)) from error
        return [self._sign(record, message, fields, domain, self._keys_of(domain), hasher.digest())]

    def _sign(
        self,
        record: Record,
        message: Message,
        fields: list[header_block.Field],
        domain: str,
        keys: tuple[Key, ...],
        body_digest: bytes,
    ) -> Append:
        header = dkim.HeaderDigest(fields)
        signed_at = int(self._clock())
        signatures = []
        for key in keys:
            unsigned = header.unsigned_field(
                key.algorithm, domain.encode("ascii"), key.selector, signed_at, body_digest
            )
            signatures.append(dkim.signed_field(unsigned, key.sign(header.digest(unsigned))))
        SIGNED.inc()
        block = b"".join([*signatures, message.header_block])
        signed = Message(message.envelope, block, message.blob)
        return _signed(record, signed, encode_message(signed))


def _signed(record: Record, message: Message, value: bytes) -> Append:
    return Append(topics.laned(topics.SIGNED, message.envelope.lane), record.key, value, record.body, message)
