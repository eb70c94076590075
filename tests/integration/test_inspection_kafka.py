"""`postrail trace`, `queue` and `dead-letters` on a Kafka log, beside running services and without: against a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.cli.main import main
from postrail.core import topics
from postrail.core.identity import new_message_id
from postrail.core.records import (
    DeadLetter,
    Deferred,
    Delivery,
    Envelope,
    Event,
    EventType,
    Lane,
    Message,
    MessageId,
    Recipient,
    Route,
    RouteKind,
)
from postrail.log.interface import Append, Commit, TopicPartition
from postrail.log.kafka import KafkaLog
from postrail.log.kafka.inspection import open_inspection
from postrail.log.progress import Progress
from postrail.wire import codec
from tests.support.kafka import KafkaBroker
from tests.support.kafka_log import kafka_config, kafka_log
from tests.support.postrail_process import run_command
from tests.support.processes import free_port

PARTITIONS = 3
BODY = b"Hello\r\n" * 100


@dataclass
class Setting:
    """A log with topics of the test's own, and a configuration file for the commands."""

    log: KafkaLog
    config_file: Path
    kafka: Any
    capsys: pytest.CaptureFixture[str]

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in a thread: it has an event loop of its own. Returns its status, output and errors."""
        status = await asyncio.to_thread(main, [*arguments, "--config", str(self.config_file)])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        status, output, errors = await self.run(*arguments, "--json")
        assert (status, errors) == (0, "")
        return [json.loads(line) for line in output.splitlines()]


def write_config(folder: Path, kafka: dict[str, Any]) -> Path:
    config = {
        "hostname": "mail.example.com",
        "data_directory": str(folder / "data"),
        "pools": {"default": {"sources": [{"address": "127.0.0.1", "ehlo": "mail.example.com"}]}},
        "delivery": {"drain_seconds": 5},
        "log": {"kind": "kafka", "kafka": kafka},
    }
    path = folder / "postrail.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture
async def made(
    kafka_broker: KafkaBroker, kafka_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Setting]:
    kafka = kafka_config(kafka_broker.bootstrap, kafka_prefix, partitions=PARTITIONS)
    values = kafka.model_dump(mode="json", exclude_none=True, exclude={"sasl", "tls"})
    async with kafka_log(kafka) as log:
        yield Setting(log, write_config(tmp_path, values), kafka, capsys)


def an_id(number: int, at: float | None = None) -> MessageId:
    """Each in a group of its own, so that the partitions share them (`identity.group_of`)."""
    return new_message_id(at or time.time(), number.to_bytes(2, "big") + number.to_bytes(8, "big"))


def envelope(message_id: MessageId) -> Envelope:
    now = time.time()
    to = (Recipient("user@example.com"),)
    return Envelope(message_id, "a@sender.test", to, "app", "transactional", Lane.URGENT, now - 5, now + 86400, 700)


def delivery(message_id: MessageId, site: str) -> Delivery:
    route = Route(RouteKind.MX, "example.com", 25, site, "default", "default", "127.0.0.1")
    return Delivery(f"{message_id}.x.1", envelope(message_id), b"From: a@sender.test\r\n", None, route)  # type: ignore[arg-type]


def accepted(number: int) -> Append:
    message_id = an_id(number)
    value = codec.encode_message(Message(envelope(message_id), b"From: a@sender.test\r\n"))
    return Append("accepted.urgent", message_id.encode(), value, BODY)


def outbound(number: int, site: str) -> Append:
    message_id = an_id(number)
    key = f"127.0.0.1|{site}".encode()
    return Append("outbound.default.default.bulk", key, codec.encode_delivery(delivery(message_id, site)), BODY)


def event(kind: EventType, message_id: MessageId, *, at: float = 0.0, header: str = "") -> Append:
    told = Event(kind, at or time.time(), message_id, ("user@example.com",), header_message_id=header)
    return Append(topics.EVENTS, message_id.encode(), codec.encode_event(told))


async def commit(log: KafkaLog, group: str, topic: str, progress: Sequence[Progress]) -> None:
    """Commit for a group without members, partition by partition."""
    await log.transact([], [Commit(group, TopicPartition(topic, number), done) for number, done in enumerate(progress)])


class TestTrace:
    async def test_a_story_is_told_from_its_partition(self, made: Setting) -> None:
        mine, other = an_id(1), an_id(2)
        await made.log.append([event(EventType.ACCEPTED, mine, header="one@client"), event(EventType.ACCEPTED, other)])
        await made.log.append([event(EventType.ROUTED, mine), event(EventType.DELIVERED, mine)])
        for name in (mine, mine.upper()):
            told = await made.rows("trace", name)
            assert [row["type"] for row in told] == ["accepted", "routed", "delivered"]
        status, output, _ = await made.run("trace", mine)
        assert (status, output.startswith(f"message {mine}  <one@client>")) == (0, True)

    async def test_a_message_id_field_is_searched_in_all_partitions(self, made: Setting) -> None:
        ids = [an_id(number) for number in range(12)]
        await made.log.append(
            [event(EventType.ACCEPTED, each, header=f"{number}@client") for number, each in enumerate(ids)]
        )
        for number in (0, 7, 11):
            (row,) = await made.rows("trace", f"<{number}@client>")
            assert row["message_id"] == ids[number]
        status, output, errors = await made.run("trace", "nobody@client")
        assert (status, output) == (1, "")
        assert "no events of a message nobody@client in the last 24.0 h: it was never accepted here" in errors
        assert "look further back with --since" in errors

    async def test_what_is_older_than_the_id_is_not_read(self, made: Setting) -> None:
        """Events of an id with a later time cannot be there: the search starts at the id's time."""
        message_id = an_id(1, time.time() + 7200)
        await made.log.append([event(EventType.ACCEPTED, message_id)])
        status, _, errors = await made.run("trace", message_id)
        assert (status, "it was never accepted here" in errors) == (1, True)
        assert len(await made.rows("trace", message_id, "--since", "1h")) == 1

    async def test_nobody_ever_wrote_an_event(self, made: Setting) -> None:
        status, output, errors = await made.run("trace", an_id(1))
        assert (status, output) == (1, "")
        assert "no events of a message" in errors

    async def test_a_time_that_is_none_is_refused(self, made: Setting) -> None:
        with pytest.raises(SystemExit, match="64"):
            await made.run("trace", an_id(1), "--since", "yesterday")
        assert "'yesterday' is not a duration" in made.capsys.readouterr().err


class TestQueue:
    async def test_what_no_group_has_finished_waits(self, made: Setting) -> None:
        await made.log.append([accepted(number) for number in range(30)])
        deferred = Deferred(delivery(an_id(100), "mx.late.test"), time.time(), time.time() + 60, "451 4.3.0 later")
        await made.log.append(
            [
                *[outbound(number, f"mx{number % 4}.test") for number in range(40, 60)],
                Append("deferred.60s", b"k", codec.encode_deferred(deferred), BODY),
                event(EventType.ACCEPTED, an_id(0)),
            ]
        )
        rows = await made.rows("queue")
        assert {(row["stage"], row["site"]): row["deliveries"] for row in rows} == {
            ("to be signed", ""): 30,
            **{("to be sent", f"mx{number}.test"): 5 for number in range(4)},
            ("deferred", "mx.late.test"): 1,
        }
        ends: dict[int, int] = {}
        async with open_inspection(made.kafka) as inspection:
            async for _, record in inspection.unfinished(lambda topic: topic == "accepted.urgent", None):
                ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
        assert len(ends) == PARTITIONS
        # All of one partition is finished, all but the first record of the next, all but the second and third of the last.
        done = [Progress(ends[0]), Progress(0, frozenset(range(1, ends[1]))), Progress(1, frozenset(range(3, ends[2])))]
        await commit(made.log, "signing", "accepted.urgent", done)
        assert len(await made.rows("queue", "--messages")) == 1 + 2 + 21
        (row,) = await made.rows("queue", "--site", "mx.late.test")
        assert (row["reason"], row["deliveries"]) == ("451 4.3.0 later", 1)

    async def test_a_long_queue_is_shown_in_part_and_said_to_be(self, made: Setting) -> None:
        await made.log.append([accepted(number) for number in range(300)])
        await made.log.append([outbound(number, f"mx{number}.test") for number in range(600, 1200)])
        status, output, errors = await made.run("queue", "--messages", "--json", "--limit", "90")
        assert status == 0
        rows = [json.loads(line) for line in output.splitlines()]
        assert 80 <= len(rows) <= 96
        assert {row["stage"] for row in rows} == {"to be signed", "to be sent"}
        assert f"{len(rows)} of 900 were looked at, the oldest of each partition; --limit N looks at more" in errors
        assert (await made.run("queue", "--limit", "900"))[2] == ""

    async def test_it_is_empty_where_everything_is_finished_or_nothing_was_ever_there(self, made: Setting) -> None:
        assert await made.run("queue") == (0, "the queue is empty\n", "")
        await made.log.append([accepted(number) for number in range(30)])
        consumer = await made.log.consumer(topics.lanes("accepted"), "signing")
        taken = 0
        while taken < 30:
            records = await consumer.poll(100, 5.0)
            taken += len(records)
            ends = {(record.topic, record.partition): record.offset + 1 for record in records}
            await made.log.transact(
                [], [Commit("signing", TopicPartition(*where), Progress(end)) for where, end in ends.items()]
            )
        assert await made.run("queue") == (0, "the queue is empty\n", ""), "the group's member is there"
        await consumer.close()
        assert await made.run("queue") == (0, "the queue is empty\n", ""), "it is gone"

    async def test_what_was_trimmed_waits_no_more(self, made: Setting) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
        from aiokafka.structs import TopicPartition as KafkaPartition

        await made.log.append([accepted(number) for number in range(30)])
        admin = AIOKafkaAdminClient(bootstrap_servers=list(made.kafka.bootstrap_servers))
        await admin.start()
        everything = {
            KafkaPartition(f"{made.kafka.topic_prefix}accepted.urgent", number): RecordsToDelete(before_offset=-1)
            for number in range(PARTITIONS)
        }
        await admin.delete_records(everything)
        await admin.close()
        assert await made.run("queue") == (0, "the queue is empty\n", "")


class TestDeadLetters:
    LETTER = DeadLetter("accepted.bulk", 0, 7, b"some-message", b"some-value", "signing", "ValueError: no", 1e9, 3)

    async def test_letters_are_listed_given_back_once_and_gone(self, made: Setting) -> None:
        letter = self.LETTER
        await made.log.append(
            [
                Append(topics.DEAD_LETTERS, b"%d" % number, codec.encode_dead_letter(letter), b"the body")
                for number in range(7)
            ]
        )
        rows = await made.rows("dead-letters")
        assert [row["reason"] for row in rows] == ["ValueError: no"] * 7
        assert {row["partition"].partition("/")[0] for row in rows} == {"dead-letters"}

        assert await made.run("dead-letters", "--reinject") == (
            0,
            "7 dead letters were given back to their stages\n",
            "",
        )
        assert (await made.run("dead-letters", "--reinject"))[1].startswith("0 dead letters were given back")
        assert await made.run("dead-letters") == (0, "there are no dead letters\n", "")

        async with open_inspection(made.kafka) as inspection:
            found = [record async for record in inspection.since("accepted.bulk", 0.0)]
        assert {(record.key, record.value) for record in found} == {(b"some-message", b"some-value")}
        bodies = [record.body for record in found]
        assert [await body.load() for body in bodies if body is not None] == [b"the body"] * 7

        await made.log.append([Append(topics.DEAD_LETTERS, b"8", codec.encode_dead_letter(letter), b"the body")])
        assert len(await made.rows("dead-letters")) == 1
        assert (await made.run("dead-letters", "--reinject"))[1].startswith("1 dead letters")


@pytest.mark.parametrize("command", [["trace", an_id(1)], ["queue"], ["dead-letters"], ["dead-letters", "--reinject"]])
def test_no_broker_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    server = f"127.0.0.1:{free_port()}"
    path = write_config(tmp_path, {"bootstrap_servers": [server]})
    assert main([*command, "--config", str(path)]) == 69
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"Kafka at {server} cannot be reached" in captured.err


def test_a_password_is_needed_and_used(
    kafka_broker: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secure = kafka_broker.secure
    if secure is None:
        pytest.skip("the broker is not ours")
    kafka: dict[str, Any] = {
        "bootstrap_servers": [secure.bootstrap],
        "topic_prefix": "nothing-of-this-name.",
        "tls": {"enabled": True, "ca_file": str(secure.ca_file)},
        "sasl": {"mechanism": "SCRAM-SHA-512", "username": secure.username, "password": secure.password},
    }
    assert main(["queue", "--config", str(write_config(tmp_path, kafka))]) == 0
    assert capsys.readouterr().out == "the queue is empty\n"
    kafka["sasl"]["password"] = "wrong"
    done = run_command("queue", "--config", str(write_config(tmp_path, kafka)))
    assert (done.returncode, done.stdout) == (69, "")
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_reader_has_the_name_that_the_inspection_expects() -> None:
    from postrail.cli import dead_letters
    from postrail.routing import service as routing
    from postrail.scheduler import tier as scheduler
    from postrail.signing import service as signing

    assert {topics.reader_of(topic) for topic in (*topics.lanes("accepted"), topics.ASIDE)} == {signing.GROUP}
    assert {topics.reader_of(topic) for topic in (*topics.lanes("signed"), *topics.lanes("due"))} == {routing.GROUP}
    assert topics.reader_of(topics.deferred(60)) == scheduler.GROUP
    assert topics.reader_of(topics.DEAD_LETTERS) == dead_letters.GROUP
    assert topics.reader_of("outbound.p.g.urgent") == "sender.p.g"
    assert [topics.reader_of(topic) for topic in (topics.EVENTS, topics.FEEDBACK, topics.outcomes("p", "g"))] == [
        None
    ] * 3
