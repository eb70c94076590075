"""What any store of large bodies must do. A suite inherits it and gives the fixtures `store` and `stored`."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from postrail.core.identity import blob_name
from postrail.core.records import BlobRef, MessageId
from postrail.shell.blobs import BLOB_NAME, CHUNK_BYTES, BlobDamaged, BlobStore

Stored = Callable[[], dict[str, Path]]
"""Gives the files behind the store: those of bodies by their names, those of unfinished ones by any other name."""


async def written(store: BlobStore, *chunks: bytes, name: str | None = None) -> BlobRef:
    """Write a body and commit it."""
    writer = store.writer(name)
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.commit()


class BlobContract:
    """What is committed can be read, and what is not leaves nothing."""

    @pytest.mark.parametrize("size_bytes", [CHUNK_BYTES * 2 + 7, (11 << 20) + 1])
    async def test_what_is_committed_can_be_read_in_pieces(self, store: BlobStore, size_bytes: int) -> None:
        body = os.urandom(size_bytes)
        ref = await written(store, body[:1000], body[1000:])
        assert (ref.size_bytes, ref.sha256) == (len(body), hashlib.sha256(body).digest())
        assert BLOB_NAME.fullmatch(ref.name)
        pieces = [piece async for piece in store.chunks(ref)]
        assert {len(piece) for piece in pieces[:-1]} == {CHUNK_BYTES}
        assert len(pieces[-1]) == size_bytes % CHUNK_BYTES
        assert b"".join(pieces) == body == await store.read(ref)

    async def test_an_empty_body_is_a_body(self, store: BlobStore) -> None:
        assert await store.read(await written(store)) == b""

    async def test_a_given_name_is_taken_and_a_repeat_replaces_it(self, store: BlobStore, stored: Stored) -> None:
        name = blob_name(MessageId("0" * 26), hashlib.sha256(b"body").digest())
        assert name != blob_name(MessageId("0" * 26), hashlib.sha256(b"bodY").digest())
        first = await written(store, b"body", name=name)
        assert first.name == name
        assert await written(store, b"bo", b"dy", name=name) == first
        assert await store.read(first) == b"body"
        assert list(stored()) == [name]

    async def test_what_is_aborted_leaves_nothing(self, store: BlobStore, stored: Stored) -> None:
        writer = store.writer()
        await writer.write(b"half a bo")
        await writer.abort()
        await writer.abort()
        assert stored() == {}

    async def test_a_repeat_that_is_aborted_leaves_what_was_stored(self, store: BlobStore) -> None:
        name = blob_name(MessageId("0" * 26), b"")
        ref = await written(store, b"body", name=name)
        writer = store.writer(name)
        await writer.write(b"bo")
        await writer.abort()
        assert await store.read(ref) == b"body"

    async def test_abort_after_commit_is_harmless(self, store: BlobStore) -> None:
        writer = store.writer()
        await writer.write(b"body")
        ref = await writer.commit()
        await writer.abort()
        assert await store.read(ref) == b"body"

    @pytest.mark.parametrize("damage", [b"", b"bod", b"bodY", b"body+"])
    async def test_damage_is_noticed(self, store: BlobStore, stored: Stored, damage: bytes) -> None:
        ref = await written(store, b"body")
        stored()[ref.name].write_bytes(damage)
        with pytest.raises(BlobDamaged, match=ref.name):
            await store.read(ref)

    @pytest.mark.parametrize("name", ["../../etc/passwd", "ab/cd", "", "ab/" + "0" * 32])
    @pytest.mark.parametrize("size_bytes", [0, 1])
    async def test_a_name_that_is_not_in_the_store_is_damage(
        self, store: BlobStore, name: str, size_bytes: int
    ) -> None:
        with pytest.raises(BlobDamaged):
            await store.read(BlobRef(name, size_bytes, b"\0" * 32))

    async def test_only_old_bodies_are_deleted(self, store: BlobStore, stored: Stored) -> None:
        old, young = await written(store, b"old"), await written(store, b"young")
        os.utime(stored()[old.name], (1000, 1000))
        assert await store.delete_older_than(2000) == 1
        assert await store.read(young) == b"young"
        with pytest.raises(BlobDamaged):
            await store.read(old)

    async def test_a_discarded_body_is_gone(self, store: BlobStore, stored: Stored) -> None:
        ref = await written(store, b"body")
        await store.discard(ref)
        await store.discard(ref)
        assert stored() == {}
