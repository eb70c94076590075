"""The directory of large bodies: what is committed can be read, what is not leaves nothing."""

import hashlib
import os
from pathlib import Path

import pytest

from postrail.core.records import BlobRef
from postrail.shell.blobs import CHUNK_BYTES, BlobDamaged, DirectoryBlobStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    return DirectoryBlobStore(tmp_path / "blobs")


def files(store: DirectoryBlobStore) -> list[Path]:
    return [path for path in store.path.rglob("*") if path.is_file()]


async def written(store: DirectoryBlobStore, *chunks: bytes) -> BlobRef:
    writer = store.writer()
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.commit()


async def test_what_is_committed_can_be_read_in_pieces(store: DirectoryBlobStore) -> None:
    body = os.urandom(CHUNK_BYTES * 2 + 7)
    ref = await written(store, body[:1000], body[1000:])
    assert (ref.size_bytes, ref.sha256) == (len(body), hashlib.sha256(body).digest())
    pieces = [piece async for piece in store.chunks(ref)]
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES, CHUNK_BYTES, 7]
    assert b"".join(pieces) == body == await store.read(ref)


async def test_an_empty_body_is_a_body(store: DirectoryBlobStore) -> None:
    assert await store.read(await written(store)) == b""


async def test_what_is_aborted_leaves_nothing(store: DirectoryBlobStore) -> None:
    writer = store.writer()
    await writer.write(b"half a bo")
    assert len(files(store)) == 1
    await writer.abort()
    await writer.abort()
    assert files(store) == []


async def test_abort_after_commit_is_harmless(store: DirectoryBlobStore) -> None:
    writer = store.writer()
    await writer.write(b"body")
    ref = await writer.commit()
    await writer.abort()
    assert await store.read(ref) == b"body"


async def test_parts_of_killed_writers_go_at_start_and_those_of_live_ones_stay(store: DirectoryBlobStore) -> None:
    dead = store.path / "ab" / ("ab" * 16 + ".part")
    dead.write_bytes(b"left by kill -9")
    live = store.writer()
    await live.write(b"still being written")
    DirectoryBlobStore(store.path)
    assert not dead.exists()
    assert await store.read(await live.commit()) == b"still being written"


@pytest.mark.parametrize("damage", [b"", b"bodY", b"body+"])
async def test_damage_is_noticed(store: DirectoryBlobStore, damage: bytes) -> None:
    ref = await written(store, b"body")
    (store.path / ref.name).write_bytes(damage)
    with pytest.raises(BlobDamaged, match=ref.name):
        await store.read(ref)


@pytest.mark.parametrize("name", ["../../etc/passwd", "ab/cd", "", "ab/" + "0" * 32])
async def test_a_name_that_is_not_in_the_store_is_damage(store: DirectoryBlobStore, name: str) -> None:
    with pytest.raises(BlobDamaged):
        await store.read(BlobRef(name, 1, b"\0" * 32))


async def test_only_old_bodies_are_deleted(store: DirectoryBlobStore) -> None:
    old, young = await written(store, b"old"), await written(store, b"young")
    os.utime(store.path / old.name, (1000, 1000))
    assert await store.delete_older_than(2000) == 1
    assert await store.read(young) == b"young"
    with pytest.raises(BlobDamaged):
        await store.read(old)


async def test_a_discarded_body_is_gone(store: DirectoryBlobStore) -> None:
    ref = await written(store, b"body")
    await store.discard(ref)
    await store.discard(ref)
    assert files(store) == []


async def test_no_room_is_an_oserror_and_abort_cleans_up(
    store: DirectoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.writer()
    await writer.write(b"first")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            await writer.write(b"second")
    await writer.abort()
    assert files(store) == []
