"""A disk that fails on command, below SQLite: an apsw VFS over the system's own. For tests of the embedded log."""

import apsw


class FaultyDisk(apsw.VFS):
    """Registered under `name` while it lives.

    Attributes:
        fail_sync, fail_write, fail_read: whether these calls fail from now on, on files whose name ends in `suffix`.
        syncs: how many succeeded.
    """

    def __init__(self, name: str, suffix: str = "") -> None:
        self.name = name
        self.suffix = suffix
        self.fail_sync = self.fail_write = self.fail_read = False
        self.syncs = 0
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else (name or "")
        self._watched = path.endswith(disk.suffix)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._watched and self._disk.fail_sync:
            raise _error(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)
        self._disk.syncs += 1

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._watched and self._disk.fail_write:
            raise _error(apsw.SQLITE_IOERR_WRITE)
        super().xWrite(data, offset)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self._watched and self._disk.fail_read:
            raise _error(apsw.SQLITE_IOERR_READ)
        return super().xRead(amount, offset)


def _error(code: int) -> apsw.Error:
    error = apsw.IOError("the disk fails, as the test wants")
    vars(error).update(result=apsw.SQLITE_IOERR, extendedresult=code)
    return error
