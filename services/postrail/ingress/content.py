"""The content of one message while it comes in: in memory while it is small, in the blob store once it is not.

Owns the accounting of memory, for the message and for all sessions of the worker. Never judges content; the readers of
`core.data_reader` do. Its neighbours: session feeds it, acceptance takes what it holds.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final, NamedTuple

from postrail.core import header_block, refusals
from postrail.core.records import BlobRef
from postrail.core.refusals import Reason, Refused
from postrail.shell import logs
from postrail.shell.blobs import CHUNK_BYTES, BlobStore, BlobWriter

LOG = logs.logger("ingress")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SMALL_BYTES: Final = 16 << 10


@dataclass(slots=True)
class Spool:
    """Memory that the content of all sessions of a worker may take."""

    max_bytes: int
    used_bytes: int = 0


class Received(NamedTuple):
    """Content at its end: the header block, and the body either here or in the blob store (`body` is then None)."""

    header_block: bytes
    body: bytes | None
    blob: BlobRef | None
    body_bytes: int


class Content:
    """One message's content. `add` what came; when it returns True, await `spill` before more; then `finish` or `drop`."""

    __slots__ = (
        "_blobs",
        "_header",
        "_inline_bytes",
        "_max_header_bytes",
        "_memory_bytes",
        "_pieces",
        "_spool",
        "_writer",
        "failure",
    )

    def __init__(self, blobs: BlobStore, spool: Spool, inline_bytes: int, max_header_bytes: int) -> None:
        self._blobs = blobs
        self._spool = spool
        self._inline_bytes = inline_bytes
        self._max_header_bytes = max_header_bytes
        self._pieces: list[bytes] = []
        self._memory_bytes = 0
        self._header: bytes | None = None
        self._writer: BlobWriter | None = None
        self.failure: Refused | None = None

    def add(self, piece: bytes) -> bool:
        """Keep a piece; True when it is time to `spill`."""
        if self.failure is not None:
            return False
        self._pieces.append(piece)
        self._memory_bytes += len(piece)
        self._spool.used_bytes += len(piece)
        if self._writer is not None:
            return self._memory_bytes >= CHUNK_BYTES
        return self._memory_bytes > self._inline_bytes or (
            self._spool.used_bytes > self._spool.max_bytes and self._memory_bytes > _SMALL_BYTES
        )

    async def spill(self) -> None:
        """Write what is in memory to the blob store, the header block excepted; what fails is kept as `failure`."""
        held = b"".join(self._pieces)
        if self._header is None:
            end = 0 if held.startswith(b"\r\n") else held.find(b"\r\n\r\n") + 2
            if end == 1:  # not found
                self._pieces = [held]
                if len(held) > self._max_header_bytes:
                    await self._fail(self._header_too_large())
                return
            if end > self._max_header_bytes:
                await self._fail(self._header_too_large())
                return
            self._header = held[:end]
            held = held[end + 2 :]
        self.forget()
        try:
            if self._writer is None:
                self._writer = self._blobs.writer()
            await self._writer.write(held)
        except OSError as error:
            await self._fail(_refused_by_disk(error))

    @property
    def is_in_memory(self) -> bool:
        """Whether nothing of it was written to the blob store."""
        return self._writer is None

    async def finish(self) -> Received:
        """The whole content; a body in the blob store is durable.

        Raises:
            Refused: what failed on the way: 552 5.3.4, 452 4.3.1, 451 4.3.0.
        """
        if self._writer is not None and self._pieces:
            await self.spill()
        if self.failure is not None:
            raise self.failure
        if self._writer is None:
            pieces = self._pieces
            block, body = header_block.split(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            self.forget()
            if len(block) > self._max_header_bytes:
                raise self._header_too_large()
            return Received(block, body, None, len(body))
        try:
            blob = await self._writer.commit()
        except OSError as error:
            raise _refused_by_disk(error) from error
        return Received(self._header or b"", None, blob, blob.size_bytes)

    async def drop(self) -> None:
        """Leave nothing behind, in memory or on disk. Harmless at any time but after the record was stored."""
        self.forget()
        if self._writer is not None:
            try:
                await self._writer.abort()
            except OSError:
                LOG.exception("blob_not_removed")

    async def _fail(self, refused: Refused) -> None:
        self.failure = refused
        await self.drop()

    def forget(self) -> None:
        """Give the memory back."""
        self._spool.used_bytes -= self._memory_bytes
        self._memory_bytes = 0
        self._pieces = []

    def _header_too_large(self) -> Refused:
        return Refused(
            Reason.SIZE, 552, "5.3.4", f"The header is larger than the limit of {self._max_header_bytes} bytes"
        )


def _refused_by_disk(error: OSError) -> Refused:
    if error.errno in _NO_ROOM:
        return refusals.storage_full()
    LOG.error("blob_store_failed", reason=str(error), advice="check what is under blobs in the configuration")
    return refusals.log_unavailable()
