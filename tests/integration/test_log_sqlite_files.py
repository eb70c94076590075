"""The embedded log's file: who may open it, what is trimmed from it, and what others see of it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from postrail.core.log_config import LogConfig
from postrail.log.interface import Append, Commit, LogError, LogUnavailable, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite import inspect, open_log
from postrail.log.sqlite import log as log_module

CONFIG = LogConfig(min_free_bytes=0)
DAY_SECONDS = 86400.0


class Clock:
    """Unix time that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def mail(number: int, topic: str = "accepted.bulk", size: int = 1000) -> Append:
    return Append(topic, b"%d" % number, b"%d" % number, os.urandom(size))


def done(group: str, topic: str, low: int) -> Commit:
    return Commit(group, TopicPartition(topic, 0), Progress(low))


def count(path: Path, table: str) -> int:
    row = apsw.Connection(str(path)).execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0])  # type: ignore[index]


async def test_a_second_process_is_refused_and_told_who_has_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = open_log(path, CONFIG)
    with pytest.raises(LogUnavailable, match=rf"log\.sqlite.*process {os.getpid()}\b"):
        open_log(path, CONFIG)
    await log.close()
    await open_log(path, CONFIG).close()


async def test_mail_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = open_log(path, CONFIG)
    await log.append([mail(1)])
    modes = {file.name: file.stat().st_mode & 0o077 for file in tmp_path.iterdir()}  # noqa: ASYNC240
    await log.close()
    assert set(modes.values()) == {0}, modes


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    await open_log(path, CONFIG).close()
    apsw.Connection(str(path)).pragma("user_version", 99)
    with pytest.raises(LogUnavailable, match="newer Postrail"):
        open_log(path, CONFIG)
    with pytest.raises(LogUnavailable, match="newer Postrail"):
        inspect.topics(path)


async def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    apsw.Connection(str(path)).execute("CREATE TABLE theirs (a)")
    with pytest.raises(LogUnavailable, match="not a Postrail log"):
        open_log(path, CONFIG)


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(LogUnavailable, match=r"log\.sqlite: the log is damaged"):
        open_log(path, CONFIG)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="no log here"):
        inspect.topics(tmp_path / "log.sqlite")


async def test_finished_mail_goes_with_its_bodies(tmp_path: Path) -> None:
    path, clock = tmp_path / "log.sqlite", Clock()
    log = open_log(path, CONFIG, clock=clock)
    for start in range(0, 400, 100):
        await log.append([mail(number) for number in range(start, start + 100)])
    await log.consumer(["accepted.bulk"], "signing")
    await log.transact([], [done("signing", "accepted.bulk", 390)])
    await log.trim()
    assert count(path, "record") == 400, "it stays a while"
    clock.now += CONFIG.keep_consumed_seconds + 1
    await log.trim()
    assert (count(path, "record"), count(path, "body")) == (10, 10)
    await log.close()


async def test_mail_that_nobody_reads_goes_by_age_and_events_stay_longer(tmp_path: Path) -> None:
    path, clock = tmp_path / "log.sqlite", Clock()
    log = open_log(path, CONFIG, clock=clock)
    await log.append([mail(1), mail(2, "events"), mail(3, "dead-letters")])
    clock.now += CONFIG.retention_seconds - 10
    await log.append([mail(4)])
    await log.trim()
    assert count(path, "record") == 4
    clock.now += 20
    await log.trim()
    assert [int(record.value) for record in inspect.records(path, "accepted.bulk")] == [4]
    assert count(path, "record") == 3
    clock.now += CONFIG.keep_events_seconds
    await log.trim()
    assert (count(path, "record"), count(path, "body")) == (0, 0)
    await log.close()


async def test_trimming_happens_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "TICK_SECONDS", 0.01)
    path, clock = tmp_path / "log.sqlite", Clock()
    log = open_log(path, CONFIG, clock=clock)
    await log.append([mail(number) for number in range(300)])
    clock.now += CONFIG.retention_seconds + 1
    for _ in range(500):
        if not count(path, "record"):
            break
        await asyncio.sleep(0.01)
    assert count(path, "body") == 0
    await log.close()


async def test_a_body_that_left_the_file_is_stored_again_or_refused(tmp_path: Path) -> None:
    clock = Clock()
    log = open_log(tmp_path / "log.sqlite", LogConfig(min_free_bytes=0, hot_bytes=100_000), clock=clock)
    await log.append([mail(1), mail(2)])
    consumer = await log.consumer(["accepted.bulk"], "signing")
    held = [record.body for record in await consumer.poll(10, 1.0)]
    await log.append([mail(number, size=20_000) for number in range(4)])
    await log.append([mail(5)])
    [*_, newest] = [record.body for record in await consumer.poll(10, 1.0)]
    clock.now += CONFIG.retention_seconds + 1
    await log.trim()
    assert newest is not None
    assert newest.in_memory is not None
    await log.append([Append("signed.bulk", b"k", b"v", newest)])
    [record] = await (await log.consumer(["signed.bulk"], "routing")).poll(10, 1.0)
    assert record.body is not None
    assert await record.body.load() == newest.in_memory
    with pytest.raises(LogError, match="not kept any more"):
        await log.append([Append("signed.bulk", b"k", b"v", held[0])])
    assert held[1] is not None
    with pytest.raises(LogError, match="not kept any more"):
        await held[1].load()
    await log.close()


async def test_a_slow_reader_gets_all_though_memory_is_short(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite", LogConfig(min_free_bytes=0, hot_bytes=20_000))
    consumer = await log.consumer(["accepted.bulk"], "signing")
    sent = [mail(number, size=500) for number in range(1000)]
    for start in range(0, 1000, 10):
        await log.append(sent[start : start + 10])
    found = []
    while records := await consumer.poll(70, 0.0):
        found += records
    assert [record.offset for record in found] == list(range(1000))
    for append, record in zip(sent, found, strict=True):
        assert record.body is not None
        assert await record.body.load() == append.body
    await log.close()


async def test_a_body_of_another_log_is_copied(tmp_path: Path) -> None:
    one, other = open_log(tmp_path / "a.sqlite", CONFIG), open_log(tmp_path / "b.sqlite", CONFIG)
    await one.append([mail(1)])
    [record] = await (await one.consumer(["accepted.bulk"], "moving")).poll(1, 1.0)
    await other.append([Append("accepted.bulk", record.key, record.value, record.body)])
    [moved] = await (await other.consumer(["accepted.bulk"], "signing")).poll(1, 1.0)
    assert record.body is not None
    assert moved.body is not None
    assert await moved.body.load() == await record.body.load()
    await one.close()
    await other.close()


async def test_the_write_ahead_log_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = open_log(path, CONFIG)
    for _ in range(80):
        await log.append([mail(number, size=250_000) for number in range(8)])
    assert path.with_name("log.sqlite-wal").stat().st_size < 120 << 20
    await log.close()
    assert path.stat().st_size > 150 << 20


async def test_another_process_sees_what_waits_while_the_log_runs_and_after(tmp_path: Path) -> None:
    path = tmp_path / "worker-0" / "log.sqlite"
    log = open_log(path, CONFIG)
    await log.append([mail(number) for number in range(5)])
    await log.append([Append("events", b"id-%d" % (number % 3), b"event %d" % number) for number in range(9)])
    await log.transact([], [Commit("signing", TopicPartition("accepted.bulk", 0), Progress(1, frozenset({3})))])
    assert inspect.log_files(tmp_path) == [path]
    _look(path)
    code = f"""
from pathlib import Path
from postrail.log.sqlite import inspect
print([record.offset for record in inspect.pending(Path({str(path)!r}), "accepted.bulk", ["signing"])])
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[1, 2, 4]\n"
    await log.append([mail(6)])
    await log.close()
    assert not path.with_name("log.sqlite-wal").exists()
    _look(path, mails=6)


def _look(path: Path, mails: int = 5) -> None:
    assert [record.value for record in inspect.records_by_key(path, "events", b"id-1")] == [
        b"event 1",
        b"event 4",
        b"event 7",
    ]
    assert [record.offset for record in inspect.records_by_key(path, "accepted.bulk", b"2")] == [2]
    waiting = list(inspect.pending(path, "accepted.bulk", ["signing"]))
    assert [record.offset for record in waiting] == [1, 2, *range(4, mails)]
    body = waiting[0].body
    assert isinstance(body, inspect.StoredBody)
    assert len(body.read()) == body.size_bytes == 1000
    assert len(list(inspect.pending(path, "accepted.bulk", ["signing", "unknown"]))) == mails
    assert inspect.progress(path, "signing") == {TopicPartition("accepted.bulk", 0): Progress(1, frozenset({3}))}
    states = {state.partition.topic: state for state in inspect.topics(path)}
    assert states["accepted.bulk"][1:4] == (0, mails, mails)
    assert states["events"].records == 9
    assert [record.offset for record in inspect.records(path, "events", start=5)] == [5, 6, 7, 8]
    assert not list(inspect.records(path, "events", start=9))
