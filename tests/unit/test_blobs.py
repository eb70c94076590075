"""The directory of large bodies passes the contract; what killed writers left goes; a full disk shows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from postrail.shell.blobs import DirectoryBlobStore
from tests.contract.blob_contract import BlobContract, Stored


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryBlobStore]:
    opened = DirectoryBlobStore(tmp_path / "blobs")
    yield opened
    opened.close()


@pytest.fixture
def stored(store: DirectoryBlobStore) -> Stored:
    return lambda: {str(path.relative_to(store.path)): path for path in store.path.rglob("*") if path.is_file()}


class TestDirectoryBlobStore(BlobContract):
    async def test_parts_of_killed_writers_go_at_start_and_those_of_live_ones_stay(
        self, store: DirectoryBlobStore
    ) -> None:
        dead = store.path / "ab" / ("ab" * 16 + ".part")
        dead.write_bytes(b"left by kill -9")
        live = store.writer()
        await live.write(b"still being written")
        DirectoryBlobStore(store.path).close()
        assert not dead.exists()
        assert await store.read(await live.commit()) == b"still being written"

    async def test_no_room_is_an_oserror_and_abort_cleans_up(
        self, store: DirectoryBlobStore, stored: Stored, monkeypatch: pytest.MonkeyPatch
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
        assert stored() == {}
