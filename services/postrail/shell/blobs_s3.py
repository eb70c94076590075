"""Large bodies in S3-compatible storage.

Owns the border to `obstore`: its settings, time limits and errors. A body is gathered in an unnamed file on the local disk
and sent at its commit, in parts of 5 MiB: a slow submitter occupies no memory and no upload, and one that gives up leaves
nothing behind in the bucket. A process that is killed in the middle of a body of several parts leaves its parts there, which
nobody can see: a bucket's lifecycle rule (AbortIncompleteMultipartUpload) removes them. Its neighbour is `blobs`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from prometheus_client import Counter

from postrail.core.blobs_config import S3Config
from postrail.core.records import BlobRef
from postrail.shell.blobs import BLOB_NAME, CHUNK_BYTES, BlobDamaged, BlobUnavailable, verify

# Bodies written to, pieces read from and listings of S3-compatible storage. operation: write, read, delete, list; outcome: ok,
# failed (after the retries), damaged (what is stored is missing or not what was written). Alert on any damaged, and when
# failed exceeds a hundredth of ok for 5 minutes: submission then answers 451 to large messages, and such mail waits.
REQUESTS = Counter("postrail_blob_requests_total", "Uses of S3-compatible storage.", ["operation", "outcome"])

PART_BYTES: Final = 5 << 20
READ_BYTES: Final = 1 << 20
UPLOADS: Final = 4
"""Bodies that are sent at a time; each takes up to three parts of memory."""
_PARTS_AT_A_TIME: Final = 2
_CONNECT_SECONDS: Final = 5
_RETRIES: Final = 3
_SECRET_SECONDS: Final = 300
_DELETE_AT_A_TIME: Final = 1000
_THREADS: Final = 2
_CODE: Final = re.compile(r"<Code>(\w+)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
_FAILURES: Final = (BaseError, OSError, ValueError)
"""What obstore raises: its own errors, FileNotFoundError, ValueError, and what reading a file of ours raises."""

T = TypeVar("T")


class S3BlobStore:
    """Objects in a bucket, shared by all processes of a cluster.

    Args:
        config: validated; a secret in a file is read when it is needed.
        folder: where bodies are gathered before they are sent; they have no name there.
    """

    def __init__(self, config: S3Config, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.client = _client(config)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        folder.mkdir(parents=True, exist_ok=True)

    def writer(self, name: str | None = None) -> S3BlobWriter:
        """Begin a body; see BlobStore.writer."""
        return S3BlobWriter(self, name)

    async def chunks(self, ref: BlobRef) -> AsyncIterator[bytes]:
        """The bytes in pieces of CHUNK_BYTES; see BlobStore.chunks.

        Each MiB is a request of its own: a receiver that takes an hour holds no connection to the storage.
        """
        if not BLOB_NAME.fullmatch(ref.name):
            raise BlobDamaged(f"blob {ref.name!r}: no name of this store")
        digest, size_bytes = hashlib.sha256(), 0
        while size_bytes < ref.size_bytes or not size_bytes:
            piece = memoryview(await self._range(ref, size_bytes))
            await self.run(digest.update, piece)
            size_bytes += len(piece)
            for start in range(0, len(piece), CHUNK_BYTES):
                yield bytes(piece[start : start + CHUNK_BYTES])
            if not piece:
                break
        try:
            verify(ref, size_bytes, digest.digest())
        except BlobDamaged:
            REQUESTS.labels("read", "damaged").inc()
            raise

    async def read(self, ref: BlobRef) -> bytes:
        """All bytes at once; raises as `chunks`."""
        return b"".join([chunk async for chunk in self.chunks(ref)])

    async def discard(self, ref: BlobRef) -> None:
        """Delete a body to which certainly no record refers; one that cannot be deleted goes by age."""
        with suppress(BlobUnavailable):
            await self._delete([ref.name])

    async def delete_older_than(self, unix_seconds: float) -> int:
        """Delete bodies written before this time, unless the bucket does so itself; returns how many."""
        if not self.config.delete_old:
            return 0
        deleted, limit = 0, datetime.fromtimestamp(unix_seconds, UTC)
        try:
            async for page in obstore.list(self.client, chunk_size=_DELETE_AT_A_TIME):
                old = [
                    item["path"] for item in page if item["last_modified"] < limit and BLOB_NAME.fullmatch(item["path"])
                ]
                if old:
                    await self._delete(old)
                    deleted += len(old)
        except BlobUnavailable:
            raise
        except _FAILURES as error:
            raise self.failure("list", "bodies cannot be listed", error) from error
        REQUESTS.labels("list", "ok").inc()
        return deleted

    def close(self) -> None:
        """End the threads; nothing may be under way."""
        self._pool.shutdown()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call in the store's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def failure(self, operation: str, what: str, error: BaseException) -> BlobUnavailable:
        """The error for a person: what failed, what the storage said, what to do."""
        REQUESTS.labels(operation, "failed").inc()
        where = f"s3://{self.config.bucket}" + (f" at {self.config.endpoint}" if self.config.endpoint else "")
        return BlobUnavailable(f"{what}: {where}: {_said(error)}; {self._advice(error)}")

    def _advice(self, error: BaseException) -> str:
        text = str(error)
        if "NoSuchBucket" in text:
            return "create the bucket, or correct blobs.s3.bucket"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "<Code>" in text:
            return "check blobs.s3.access_key_id, its secret, and what it may do: read, write, delete, list"
        return "check that the storage runs and blobs.s3.endpoint is right"

    async def _range(self, ref: BlobRef, start: int) -> Any:
        end = min(start + READ_BYTES, ref.size_bytes)
        try:
            if not ref.size_bytes:
                result = await obstore.get_async(self.client, ref.name)
            else:
                result = await obstore.get_async(self.client, ref.name, options={"range": (start, end)})
            data = await result.bytes_async()
        except _FAILURES as error:
            if "<Code>NoSuchKey</Code>" in str(error) or "<Code>InvalidRange</Code>" in str(error):
                REQUESTS.labels("read", "damaged").inc()
                raise BlobDamaged(f"blob {ref.name}: is not, or not whole, in s3://{self.config.bucket}") from error
            raise self.failure("read", f"blob {ref.name} cannot be read", error) from error
        REQUESTS.labels("read", "ok").inc()
        if result.meta["size"] != ref.size_bytes:
            REQUESTS.labels("read", "damaged").inc()
            raise BlobDamaged(
                f"blob {ref.name}: has {result.meta['size']} bytes that are not the {ref.size_bytes} written"
            )
        return data

    async def _delete(self, names: list[str]) -> None:
        try:
            await obstore.delete_async(self.client, names)
        except _FAILURES as error:
            raise self.failure("delete", "bodies cannot be deleted", error) from error
        REQUESTS.labels("delete", "ok").inc()


class S3BlobWriter:
    """One body on its way into a bucket; see BlobWriter."""

    def __init__(self, store: S3BlobStore, name: str | None) -> None:
        self._store = store
        self._given_name = name
        self._name = name or _new_name()
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._sent = False

    async def write(self, chunk: bytes) -> None:
        """Add bytes to the local file; raises OSError."""
        await self._store.run(self._write, chunk)

    async def commit(self) -> BlobRef:
        """Send it; returns when the storage has acknowledged all of it. Raises BlobUnavailable, after which it is gone."""
        store = self._store
        try:
            async with asyncio.timeout(store.config.write_timeout_seconds):
                async with store.uploads:
                    await self._send()
        except _FAILURES as error:
            failure = store.failure("write", f"blob {self._name} cannot be stored", error)
            await self.abort()
            raise failure from error
        REQUESTS.labels("write", "ok").inc()
        self._close()
        return BlobRef(self._name, self._size_bytes, self._digest.digest())

    async def abort(self) -> None:
        """Leave nothing behind: obstore ends what it has begun, and what may have arrived unheard is deleted."""
        if self._file is None:
            return
        self._close()
        if self._sent and self._given_name is None:
            await self._store.discard(BlobRef(self._name, 0, b""))

    def _write(self, chunk: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._store.folder, buffering=0)  # noqa: SIM115  # closed by _close
        self._digest.update(chunk)
        self._size_bytes += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]

    async def _send(self) -> None:
        if self._file is None:
            await self._store.run(self._write, b"")
        assert self._file is not None
        self._file.seek(0)
        self._sent = True
        small = self._size_bytes <= PART_BYTES
        content = await self._store.run(self._file.read) if small else self._file
        await obstore.put_async(
            self._store.client,
            self._name,
            content,
            use_multipart=not small,
            chunk_size=PART_BYTES,
            max_concurrency=_PARTS_AT_A_TIME,
        )

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _new_name() -> str:
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name}"


def _client(config: S3Config) -> S3Store:
    options: dict[str, Any] = {}
    if config.region:
        options["region"] = config.region
    if config.endpoint:
        options["endpoint"] = config.endpoint
    if config.virtual_hosted:
        options["virtual_hosted_style_request"] = True
    if config.access_key_id is not None:
        options["credential_provider"] = _credentials(config)
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "timeout": timedelta(seconds=config.request_timeout_seconds),
        "allow_http": config.allow_http,
    }
    if config.ca_file is not None:
        client["root_certificate"] = Path(config.ca_file).read_bytes()
    return S3Store(
        config.bucket,
        prefix=config.prefix or None,
        client_options=client,  # type: ignore[arg-type]
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=config.request_timeout_seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
        **options,
    )


def _credentials(config: S3Config) -> Callable[[], Any]:
    """The configured key, whatever the process's environment says."""

    def key() -> dict[str, Any]:
        assert config.access_key_id is not None
        secret, expires_at = "", None
        if config.secret_access_key_file is not None:
            secret = Path(config.secret_access_key_file).read_text(encoding="utf-8").strip()
            expires_at = datetime.fromtimestamp(time.time() + _SECRET_SECONDS, UTC)
        elif config.secret_access_key is not None:
            secret = config.secret_access_key.get_secret_value()
        return {
            "access_key_id": config.access_key_id.get_secret_value(),
            "secret_access_key": secret,
            "token": None,
            "expires_at": expires_at,
        }

    return key


def _said(error: BaseException) -> str:
    """What the storage answered, in one line and without what it repeats of the request."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error)
    answer = _CODE.search(text)
    if answer is not None:
        return f"{answer[1]}: {answer[2]}"
    return text.split("\n", 1)[0].rstrip() or type(error).__name__
