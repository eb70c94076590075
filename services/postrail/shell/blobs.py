"""Bodies that are too large for a record: written durably before the record, read in pieces, deleted by age only.

Owns the store's protocol and the directory that implements it. Never knows what a body is, and never deletes because
somebody is done with it: a second delivery may still refer to it. Neighbours: ingress writes, and routing where the log would
store a body once for each delivery; signing and the sender read; the process that runs the pipeline calls
`delete_older_than`. `blobs_s3` is the other implementation, `blob_stores` picks one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from postrail.core.records import BlobRef

CHUNK_BYTES: Final = 256 << 10
BLOB_NAME: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}")
_PART_SUFFIX: Final = ".part"
_THREADS: Final = 2

T = TypeVar("T")


class BlobDamaged(Exception):
    """The stored bytes are missing, or are not those that were written; the message names the blob."""


class BlobUnavailable(OSError):
    """The store cannot be used now, which says nothing about the body; the message says what is wrong and what to do."""


class BlobWriter(Protocol):
    """One body on its way into the store. Exactly one of `commit` and `abort` ends it."""

    async def write(self, chunk: bytes) -> None:
        """Add bytes. Raises OSError when there is no room; then `abort`."""
        ...

    async def commit(self) -> BlobRef:
        """Make it durable and return its name; raises OSError, after which it is gone."""
        ...

    async def abort(self) -> None:
        """Leave nothing behind. Harmless after `commit` or a second time."""
        ...


class BlobStore(Protocol):
    """Where large bodies lie."""

    def writer(self, name: str | None = None) -> BlobWriter:
        """Begin a body; nothing is made until the first write.

        Args:
            name: of `core.identity.blob_name`, where a repeat writes the same bytes again and replaces them; None: a new one.
        """
        ...

    def chunks(self, ref: BlobRef) -> AsyncIterator[bytes]:
        """The bytes in pieces of CHUNK_BYTES.

        Raises:
            BlobDamaged: it is missing, or its size or SHA-256 is not the reference's. A wrong digest shows after the
                last piece only: whoever sends on must not finish when this raises.
            BlobUnavailable: the store cannot be read now; later it may.
        """
        ...

    async def read(self, ref: BlobRef) -> bytes:
        """All bytes at once; raises as `chunks`."""
        ...

    async def discard(self, ref: BlobRef) -> None:
        """Delete a body that was committed, but to which certainly no record refers: the log had no room."""
        ...

    async def delete_older_than(self, unix_seconds: float) -> int:
        """Delete bodies written before this time, and what killed writers left; returns how many files."""
        ...


class DirectoryBlobStore:
    """Files in a directory, shared by all processes of the machine.

    A body is written to `NAME.part`, locked by its writer, and renamed when it is durable. A part that nobody locks
    belongs to a writer that was killed; it is removed when a store is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for number in range(256):
            (path / f"{number:02x}").mkdir(exist_ok=True)
        _sync_directory(path)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        self._delete_parts()

    def writer(self, name: str | None = None) -> DirectoryBlobWriter:
        """Begin a body; see BlobStore.writer."""
        return DirectoryBlobWriter(self, name)

    async def chunks(self, ref: BlobRef) -> AsyncIterator[bytes]:
        """The bytes in pieces of CHUNK_BYTES; see BlobStore.chunks."""
        if not BLOB_NAME.fullmatch(ref.name):
            raise BlobDamaged(f"blob {ref.name!r}: no name of this store")
        try:
            fd = await self.run(os.open, self.path / ref.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlobDamaged(f"blob {ref.name}: is not in {self.path}") from error
        except OSError as error:
            raise BlobUnavailable(f"blob {ref.name}: cannot be opened: {error.strerror}; check {self.path}") from error
        digest, size_bytes = hashlib.sha256(), 0
        try:
            while chunk := await self.run(_read_and_hash, fd, digest):
                size_bytes += len(chunk)
                yield chunk
        except OSError as error:
            raise BlobUnavailable(f"blob {ref.name}: cannot be read: {error.strerror}; check {self.path}") from error
        finally:
            os.close(fd)
        verify(ref, size_bytes, digest.digest())

    async def read(self, ref: BlobRef) -> bytes:
        """All bytes at once; raises BlobDamaged."""
        return b"".join([chunk async for chunk in self.chunks(ref)])

    async def discard(self, ref: BlobRef) -> None:
        """Delete a body to which certainly no record refers."""
        await self.run(_unlink_if_there, self.path / ref.name)

    async def delete_older_than(self, unix_seconds: float) -> int:
        """Delete bodies written before this time, and what killed writers left; returns how many files."""
        return await self.run(self._delete_older_than, unix_seconds)

    def close(self) -> None:
        """End the threads; nothing may be under way."""
        self._pool.shutdown()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call in the store's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _delete_older_than(self, unix_seconds: float) -> int:
        deleted = self._delete_parts()
        for directory in self.path.iterdir():
            for entry in os.scandir(directory):
                with suppress(FileNotFoundError):
                    if not entry.name.endswith(_PART_SUFFIX) and entry.stat().st_mtime < unix_seconds:
                        os.unlink(entry.path)  # noqa: PTH108  # scandir gives strings; a Path for each costs more than the call
                        deleted += 1
        return deleted

    def _delete_parts(self) -> int:
        return sum(_delete_unless_locked(part) for part in self.path.glob(f"??/*{_PART_SUFFIX}"))


class DirectoryBlobWriter:
    """One body on its way into a directory; see BlobWriter."""

    def __init__(self, store: DirectoryBlobStore, name: str | None) -> None:
        self._store = store
        self._given_name = name
        self._fd = -1
        self._part = self._final = Path()
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes; raises OSError."""
        await self._store.run(self._write, chunk)

    async def commit(self) -> BlobRef:
        """Make it durable and return its name; raises OSError, after which it is gone."""
        try:
            return await self._store.run(self._commit)
        except OSError:
            await self.abort()
            raise

    async def abort(self) -> None:
        """Leave nothing behind."""
        if self._fd >= 0:
            await self._store.run(self._abort)

    def _open(self) -> None:
        while True:
            token = secrets.token_hex(16)
            self._final = self._store.path / (self._given_name or f"{token[:2]}/{token}")
            self._part = self._final.parent / (token + _PART_SUFFIX)
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._fd = fd
                return
            os.close(fd)  # another process took the part for a dead writer's in between

    def _write(self, chunk: bytes) -> None:
        if self._fd < 0:
            self._open()
        self._digest.update(chunk)
        self._size_bytes += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def _commit(self) -> BlobRef:
        if self._fd < 0:
            self._open()
        os.fsync(self._fd)
        final = self._final
        self._part.rename(final)
        _sync_directory(final.parent)
        os.close(self._fd)
        self._fd = -1
        return BlobRef(f"{final.parent.name}/{final.name}", self._size_bytes, self._digest.digest())

    def _abort(self) -> None:
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                self._part.unlink()
            if (
                self._given_name is None
            ):  # otherwise a record may refer to what an earlier writer of the same bytes made
                with suppress(FileNotFoundError):
                    self._final.unlink()
            os.close(self._fd)
            self._fd = -1


def verify(ref: BlobRef, size_bytes: int, sha256: bytes) -> None:
    """Raise BlobDamaged where what was read is not what the reference names."""
    if size_bytes != ref.size_bytes or sha256 != ref.sha256:
        raise BlobDamaged(f"blob {ref.name}: has {size_bytes} bytes that are not the {ref.size_bytes} written")


def _read_and_hash(fd: int, digest: Any) -> bytes:
    chunk = os.read(fd, CHUNK_BYTES)
    digest.update(chunk)
    return chunk


def _unlink_if_there(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete_unless_locked(part: Path) -> bool:
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(fd)
    return True
