"""The embedded log on a full disk, on a failing disk, and killed (faults 5, 6 and 7)."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from postrail.core.log_config import LogConfig
from postrail.log.interface import Append, Commit, LogFull, LogUnavailable, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite import SqliteLog, inspect, open_log
from tests.support.faulty_disk import FaultyDisk

CONFIG = LogConfig(min_free_bytes=0)
ACCEPTED = TopicPartition("accepted.bulk", 0)


def mail(number: int, size: int = 1000) -> Append:
    return Append("accepted.bulk", b"%d" % number, b"%d" % number, os.urandom(size))


async def stored(path: Path, topic: str = "accepted.bulk", *, group: str = "check") -> list[int]:
    log = open_log(path, CONFIG)
    consumer = await log.consumer([topic], group)
    found: list[int] = []
    while records := await consumer.poll(1000, 0.0):
        for record in records:
            found.append(int(record.value))
            if record.body is not None:
                assert len(await record.body.load()) == record.body.size_bytes
    await log.close()
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 3 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"a small filesystem needs the right to mount: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk_refuses_and_resumes_by_itself(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    path = small_disk / "log.sqlite"
    log = open_log(path, CONFIG)
    kept: list[int] = []

    async def fill() -> None:
        for number in range(1000):
            await log.append([mail(number, 20_000)])
            kept.append(number)

    with pytest.raises(LogFull, match="no room on the disk"):
        await fill()
    with pytest.raises(LogFull):
        await log.transact([mail(5000, 20_000)], [Commit("group", ACCEPTED, Progress(1))])
    assert await log.committed("group", ["accepted.bulk"]) == {}
    ballast.unlink()
    for number in range(2000, 2005):
        await log.append([mail(number, 20_000)])
    await log.close()
    found = list(inspect.records(path, "accepted.bulk"))
    assert [int(record.value) for record in found] == [*kept, *range(2000, 2005)]


async def test_short_of_room_refuses_outside_mail_only(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite", LogConfig(min_free_bytes=1 << 60))
    with pytest.raises(LogFull, match=r"log\.min_free_bytes"):
        await log.append([mail(1)])
    await log.append([Append("events", b"k", b"delivered")])
    await log.transact([Append("signed.bulk", b"k", b"v")], [Commit("signing", ACCEPTED, Progress(1))])
    await log.close()


async def test_the_logs_own_bound_refuses_outside_mail(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite", LogConfig(min_free_bytes=0, max_bytes=1))
    await asyncio.sleep(0)  # the first look at the file's size
    with pytest.raises(LogFull, match=r"log\.max_bytes"):
        await log.append([mail(1)])
    await log.close()


@pytest.fixture
async def failing(tmp_path: Path) -> AsyncIterator[tuple[FaultyDisk, SqliteLog, list[str]]]:
    """A log on a disk that can be made to fail, and what its end was announced with."""
    disk = FaultyDisk(f"faulty-{tmp_path.name}")
    reasons: list[str] = []
    log = open_log(tmp_path / "log.sqlite", CONFIG, fatal=reasons.append, vfs=disk.name)
    await log.append([mail(1)])
    yield disk, log, reasons
    disk.fail_sync = disk.fail_write = disk.fail_read = False
    await log.close()
    disk.unregister()


def _sync(disk: FaultyDisk) -> None:
    disk.fail_sync = True


def _write(disk: FaultyDisk) -> None:
    disk.fail_write = True


@pytest.mark.parametrize("fail", [_sync, _write])
async def test_a_failed_write_or_fsync_ends_the_process(
    failing: tuple[FaultyDisk, SqliteLog, list[str]], fail: Callable[[FaultyDisk], None], tmp_path: Path
) -> None:
    disk, log, reasons = failing
    fail(disk)
    with pytest.raises(LogUnavailable):
        await log.append([mail(2)])
    assert len(reasons) == 1
    assert str(tmp_path / "log.sqlite") in reasons[0]
    syncs = disk.syncs
    disk.fail_sync = disk.fail_write = False
    with pytest.raises(LogUnavailable):
        await log.append([mail(3)])
    assert disk.syncs == syncs, "nothing is tried again"


async def test_a_failed_read_is_reported_and_passes(failing: tuple[FaultyDisk, SqliteLog, list[str]]) -> None:
    disk, log, reasons = failing
    consumer = await log.consumer(["accepted.bulk"], "signing")
    disk.fail_read = True
    with pytest.raises(LogUnavailable, match=r"log\.sqlite"):
        await consumer.poll(10, 0.0)
    disk.fail_read = False
    assert [record.value for record in await consumer.poll(10, 0.0)] == [b"1"]
    assert reasons == []


async def test_every_append_is_synced_before_it_is_answered(
    failing: tuple[FaultyDisk, SqliteLog, list[str]],
) -> None:
    disk, log, _ = failing
    for number in range(5):
        before = disk.syncs
        await log.append([mail(number)])
        assert disk.syncs > before


def test_an_fsync_error_really_ends_the_process(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from postrail.core.log_config import LogConfig
from postrail.log.interface import Append
from postrail.log.sqlite import open_log
from tests.support.faulty_disk import FaultyDisk
async def main():
    disk = FaultyDisk("faulty")
    log = open_log(Path(sys.argv[1]), LogConfig(min_free_bytes=0), vfs="faulty")
    await log.append([Append("accepted.bulk", b"1", b"1")])
    disk.fail_sync = True
    await log.append([Append("accepted.bulk", b"2", b"2")])
    print("acknowledged")
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "log.sqlite"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 74
    assert run.stdout == ""
    assert "log.sqlite" in json.loads(run.stderr.splitlines()[-1])["problem"]
    assert [record.value for record in inspect.records(tmp_path / "log.sqlite", "accepted.bulk")][:1] == [b"1"]


_WRITER = """
import asyncio, os, sys
from pathlib import Path
from postrail.core.log_config import LogConfig
from postrail.log.interface import Append, Commit, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite import open_log
async def main():
    log = open_log(Path(sys.argv[1]), LogConfig(min_free_bytes=0, keep_consumed_seconds=0.05))
    number = int(sys.argv[2])
    async def inject(start):
        number = start
        while True:
            await log.append([Append("accepted.bulk", b"k", b"%d" % number, os.urandom(3000))])
            os.write(1, b"a %d\\n" % number)
            number += 10
    async def sign():
        consumer = await log.consumer(["accepted.bulk"], "signing")
        while True:
            for record in await consumer.poll(20, 1.0):
                where = TopicPartition(record.topic, record.partition)
                done = Commit("signing", where, Progress(record.offset + 1))
                await log.transact([Append("signed.bulk", b"k", record.value, record.body)], [done])
                os.write(1, b"s %s\\n" % record.value)
    await asyncio.gather(sign(), *(inject(number + each) for each in range(10)))
asyncio.run(main())
"""


def killed_writer(path: Path, first: int, after_seconds: float) -> set[int]:
    """What a writer was told to be durable before it was killed, so long after the first such word."""
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, path, str(first)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    lines = [child.stdout.readline()]
    time.sleep(after_seconds)
    child.send_signal(signal.SIGKILL)
    rest, complaints = child.communicate()
    assert complaints == b""
    lines += rest.splitlines()
    return {int(line[2:]) for line in lines if line.startswith(b"a ")}


async def test_kill_at_random_points_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    chance = random.Random(5)
    acknowledged: set[int] = set()
    for turn in range(8):
        acknowledged |= await asyncio.to_thread(killed_writer, path, turn * 1_000_000, chance.uniform(0.0, 0.4))
    log = open_log(path, CONFIG)
    progress = (await log.committed("signing", ["accepted.bulk"]))[ACCEPTED]
    await log.close()
    signed = await stored(path, "signed.bulk")
    unsigned = await stored(path, group="signing")
    assert len(signed) == progress.low, "as many outputs as inputs finished"
    assert len(set(signed)) == len(signed)
    assert not set(signed) & set(unsigned)
    assert acknowledged <= set(signed) | set(unsigned)
    assert len(acknowledged) > 50
