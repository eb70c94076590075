"""Large bodies in a real S3 server: the contract, and what is said and left behind when it does not do its part."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postrail.shell.blobs import BlobUnavailable
from postrail.shell.blobs_s3 import S3BlobStore
from tests.contract.blob_contract import BlobContract, Stored, written
from tests.support.s3 import S3Server, s3_server

MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def server(running: S3Server) -> S3Server:
    for path in running.objects().values():
        path.unlink()
    return running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> Iterator[S3BlobStore]:
    opened = S3BlobStore(server.config(), tmp_path / "outgoing")
    yield opened
    opened.close()


@pytest.fixture
def stored(server: S3Server) -> Stored:
    return lambda: {
        **{key.removeprefix("mail/"): path for key, path in server.objects().items()},
        **{str(path): path for path in server.parts()},
    }


class TestS3BlobStore(BlobContract):
    pass


async def test_memory_stays_bounded_while_many_large_bodies_are_stored_and_read(store: S3BlobStore) -> None:
    piece = os.urandom(MIB)

    async def one() -> None:
        ref = await written(store, *[piece] * 25)
        async for _ in store.chunks(ref):
            pass
        await store.discard(ref)

    await one()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await asyncio.gather(*[one() for _ in range(12)])
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 150, f"{grown_mib:.0f} MiB for 300 MiB of bodies"


async def test_old_bodies_stay_where_the_bucket_deletes_them_itself(
    server: S3Server, stored: Stored, tmp_path: Path
) -> None:
    store = S3BlobStore(server.config(delete_old=False), tmp_path)
    ref = await written(store, b"old")
    os.utime(stored()[ref.name], (1000, 1000))
    assert await store.delete_older_than(2000) == 0
    assert await store.read(ref) == b"old"
    store.close()


async def test_what_is_no_body_of_ours_is_not_deleted(store: S3BlobStore, server: S3Server) -> None:
    ref = await written(store, b"old")
    foreign = server.objects()[f"mail/{ref.name}"].parent / "report.csv"
    foreign.write_bytes(b"somebody else's")
    os.utime(foreign, (1000, 1000))
    assert await store.delete_older_than(2000) == 0
    assert foreign.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch.*check blobs.s3.access_key_id"),
        ({"access_key_id": "nobody"}, "access key.*check blobs.s3.access_key_id"),
        ({"bucket": "nowhere"}, "NoSuchBucket.*create the bucket, or correct blobs.s3.bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "cannot be .*http://127.0.0.1:1.*check that the storage runs"),
    ],
)
async def test_what_is_configured_wrong_is_said_and_harms_no_mail(
    server: S3Server, store: S3BlobStore, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    ref = await written(store, b"body")
    wrong = S3BlobStore(server.config(**changes), tmp_path / "wrong")
    with pytest.raises(BlobUnavailable, match=message) as refused:
        await written(wrong, b"body")
    assert refused.value.errno is None, "this is no full disk"
    with pytest.raises(BlobUnavailable, match=message):
        await wrong.read(ref)
    with pytest.raises(BlobUnavailable, match=message):
        await wrong.delete_older_than(2000)
    await wrong.discard(ref)
    assert await store.read(ref) == b"body"
    assert not list((tmp_path / "wrong").iterdir())
    wrong.close()


async def test_the_key_is_read_again_from_its_file(server: S3Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    config = server.config(secret_access_key=None, secret_access_key_file=str(secret))
    store = S3BlobStore(config, tmp_path / "outgoing")
    with pytest.raises(BlobUnavailable, match="No such file"):
        await written(store, b"body")
    secret.write_text("a secret of the test\n")
    assert await store.read(await written(store, b"body")) == b"body"
    store.close()


async def test_a_server_killed_in_the_middle_of_a_body_leaves_no_body(
    server: S3Server, store: S3BlobStore, stored: Stored
) -> None:
    writer = store.writer()
    for _ in range(40):
        await writer.write(os.urandom(MIB))
    commit = asyncio.create_task(writer.commit())
    while not server.parts():  # noqa: ASYNC110  # another program's files
        await asyncio.sleep(0.001)
    server.kill()
    try:
        with pytest.raises(BlobUnavailable, match=r"cannot be stored.*check that the storage runs"):
            await commit
    finally:
        server.start()
    assert [name for name in stored() if name.count("/") == 1] == []
    for path in server.parts():  # nobody could end the upload: the bucket's lifecycle rule removes it
        path.unlink()
    ref = await written(store, b"after it")
    assert await store.read(ref) == b"after it"


async def test_a_server_killed_while_a_body_is_read_is_no_damage(server: S3Server, store: S3BlobStore) -> None:
    body = os.urandom(4 * MIB)
    ref = await written(store, body)
    pieces = store.chunks(ref)
    await anext(pieces)
    server.kill()
    try:
        with pytest.raises(BlobUnavailable, match="cannot be read"):
            await _drain(pieces)
    finally:
        server.start()
    assert await store.read(ref) == body


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


async def test_a_server_that_is_away_for_a_moment_is_waited_for(server: S3Server, store: S3BlobStore) -> None:
    server.kill()
    storing = asyncio.create_task(written(store, b"body"))
    await asyncio.sleep(0.05)
    server.start()
    assert await store.read(await storing) == b"body"


@pytest.mark.parametrize("size_bytes", [1000, 12 * MIB])
async def test_a_server_that_does_not_answer_is_not_waited_for(
    server: S3Server, store: S3BlobStore, size_bytes: int
) -> None:
    kept = await written(store, b"kept")
    with server.stopped():
        with pytest.raises(BlobUnavailable):
            await asyncio.wait_for(written(store, os.urandom(size_bytes)), 15)
        with pytest.raises(BlobUnavailable):
            await asyncio.wait_for(store.read(kept), 15)
    assert await store.read(kept) == b"kept"
