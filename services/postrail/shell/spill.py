"""Bodies that several records would each carry: written once to the blob store instead, where the log does not share them.

Owns when that pays, and reading a body back for a notification. Used by routing (one message, many deliveries) and the sender
(one delivery, several deferrals). Neighbours: `blobs`, `log.interface` (`shares_bodies`).
"""

from __future__ import annotations

import hashlib

from prometheus_client import Counter

from postrail.core.dsn import FULL_LIMIT_BYTES
from postrail.core.identity import blob_name
from postrail.core.records import BlobRef, Delivery, MessageId
from postrail.log.interface import Body, LogError
from postrail.shell import logs
from postrail.shell.blobs import BlobDamaged
from postrail.shell.context import Context

LOG = logs.logger("spill")

# No labels. Bodies moved from the log to the blob store because several records would carry them; only on a log that stores a
# body with each record. No alert: it tells how much the blob store is used for.
SPILLED = Counter(
    "postrail_spilled_bodies_total", "Bodies moved to the blob store because several records would carry them."
)


class Spill:
    """Keeps a body once for several records.

    Attributes:
        limit_bytes: what the copies of one body may take together; None where the log shares bodies.
    """

    def __init__(self, context: Context) -> None:
        self._blobs = context.blobs
        self.limit_bytes = None if context.log.shares_bodies else context.config.blobs.inline_limit_bytes

    def is_wanted(self, body: Body | None, copies: int) -> bool:
        """Whether so many records should refer to the body instead of carrying it."""
        limit = self.limit_bytes
        return limit is not None and copies > 1 and body is not None and body.size_bytes * copies > limit

    async def keep(self, message_id: MessageId, body: Body) -> BlobRef:
        """Write the body durably; a repeat for the same message replaces it by itself.

        Raises:
            LogError: the body cannot be read.
            OSError: it cannot be written (BlobUnavailable: not now).
        """
        content = await body.load()
        writer = self._blobs.writer(blob_name(message_id, hashlib.sha256(content).digest()))
        try:
            await writer.write(content)
            ref = await writer.commit()
        except BaseException:
            await writer.abort()
            raise
        SPILLED.inc()
        return ref

    async def original(self, delivery: Delivery, body: Body | None) -> bytes | None:
        """The body for a notification where the sender asked to get it back (RET=FULL) and it is small enough, else None."""
        if delivery.envelope.ret != "FULL":
            return None
        try:
            if body is not None:
                return await body.load() if body.size_bytes <= FULL_LIMIT_BYTES else None
            blob = delivery.blob
            return await self._blobs.read(blob) if blob is not None and blob.size_bytes <= FULL_LIMIT_BYTES else None
        except (BlobDamaged, OSError, LogError) as error:
            LOG.warning("original_not_returned", message_id=delivery.envelope.message_id, reason=str(error))
            return None
