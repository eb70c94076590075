"""What the commands may ask of the embedded log, over the files of several workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from postrail.core import topics
from postrail.core.log_config import LogConfig
from postrail.log.interface import Append, Commit, TopicPartition
from postrail.log.progress import Progress
from postrail.log.sqlite import open_log
from postrail.log.sqlite.inspection import SqliteInspection


@pytest.fixture
async def inspection(tmp_path: Path) -> SqliteInspection:
    """Two workers with ten accepted messages and an event each; the first has signed three of them."""
    files = [tmp_path / f"worker-{number}" / "log.sqlite" for number in range(2)]
    for path in files:
        log = open_log(path, LogConfig(min_free_bytes=0))
        appends = [Append("accepted.bulk", b"%d" % number, b"") for number in range(10)]
        await log.append([*appends, Append(topics.EVENTS, b"3", b"told")])
        if path == files[0]:
            consumer = await log.consumer(topics.lanes(topics.ACCEPTED), "signing")
            await log.transact([], [Commit("signing", TopicPartition("accepted.bulk", 0), Progress(2, frozenset({5})))])
            await consumer.close()
        await log.close()
    return SqliteInspection(files)


async def test_what_is_not_finished_is_counted_and_shown(inspection: SqliteInspection) -> None:
    assert await inspection.count_unfinished(topics.holds_mail) == 17
    found = [each async for each in inspection.unfinished(topics.holds_mail, None)]
    assert [(place, record.offset) for place, record in found if place == "worker-0"] == [
        ("worker-0", offset) for offset in (2, 3, 4, 6, 7, 8, 9)
    ]
    assert len(found) == 17


async def test_a_limit_takes_the_oldest_of_each_worker(inspection: SqliteInspection) -> None:
    found = [each async for each in inspection.unfinished(topics.holds_mail, 4)]
    assert [(place, record.offset) for place, record in found] == [
        ("worker-0", 2),
        ("worker-0", 3),
        ("worker-1", 0),
        ("worker-1", 1),
    ]


async def test_a_key_is_found_in_every_file(inspection: SqliteInspection) -> None:
    assert [record.value for record in await inspection.keyed(topics.EVENTS, b"3", since=0.0)] == [b"told"] * 2
    assert [record.value async for record in inspection.since(topics.EVENTS, 0.0)] == [b"told"] * 2
    assert [record async for record in inspection.since(topics.EVENTS, 1e11)] == []
