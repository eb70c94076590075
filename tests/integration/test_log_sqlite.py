"""The embedded log passes the log's contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postrail.core.log_config import LogConfig
from postrail.log.interface import Append, Log
from postrail.log.sqlite import SqliteLog, open_log
from tests.contract.log_contract import LogContract


class Files:
    """A LogFactory over one file; its clock stands a second later at each look, so that age is never a matter of luck."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._now = 1_800_000_000.0
        self.opened: list[SqliteLog] = []

    def _clock(self) -> float:
        self._now += 1.0
        return self._now

    async def open(self, *, partitions: int = 1, keep_consumed_seconds: float = 60.0) -> Log:
        config = LogConfig(min_free_bytes=0, keep_consumed_seconds=keep_consumed_seconds)
        self.opened.append(open_log(self._path, config, clock=self._clock, partitions=partitions))
        return self.opened[-1]

    async def let_trim(self, log: Log) -> None:
        await self.opened[-1].trim()


class TestSqliteLog(LogContract):
    @pytest.fixture
    async def log_factory(self, tmp_path: Path) -> AsyncIterator[Files]:
        files = Files(tmp_path / "worker-0" / "log.sqlite")
        yield files
        for log in files.opened:
            await log.close()

    async def test_a_reader_that_keeps_up_gets_the_object_and_one_that_comes_later_does_not(self, log: Log) -> None:
        meaning = object()
        prompt = await log.consumer(["accepted.bulk"], "signing")
        await log.append([Append("accepted.bulk", b"a", b"1", None, meaning)])
        late = await log.consumer(["accepted.bulk"], "audit")
        [record] = await prompt.poll(10, 5.0)
        assert record.decoded is meaning
        [record] = await late.poll(10, 5.0)
        assert record.decoded is None
