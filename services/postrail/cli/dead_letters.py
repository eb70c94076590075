"""`postrail dead-letters`: lists the records that a stage could not process, and gives them back to it.

Listing works beside a running system. Giving back writes to the log: the embedded one belongs to one process, so the system must
be stopped; on Kafka it may run. The letters then count as finished for the group `reinjection`, and leave `postrail queue`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_UNAVAILABLE
from postrail.cli.stores import add_config_option, inspecting, log_files, moment, print_json, table
from postrail.core import topics
from postrail.core.config import Config
from postrail.core.records import DeadLetter
from postrail.log.interface import Append, Commit, Log, LogError, Record, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.log.sqlite import open_log
from postrail.shell.configuration import ConfigurationError, load
from postrail.wire.codec import decode_dead_letter

GROUP = "reinjection"
BATCH = 100
POLL_SECONDS = 0.2
KAFKA_POLL_SECONDS = 5.0
"""After so long without a record everything was read; a broker answers much sooner."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "dead-letters", help="list records that could not be processed, or give them back", description=__doc__
    )
    parser.add_argument(
        "--reinject",
        action="store_true",
        help="give all back to their stages; with the embedded log the system must be stopped",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or give back; 69 when the log cannot be had: the system is running and holds it, or no broker answers."""
    try:
        config = load(args.config)
        return asyncio.run(_reinject(config) if args.reinject else _list(config, as_json=args.json))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    except LogError as error:
        print(f"dead-letters: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE


def _is_letter(topic: str) -> bool:
    return topic == topics.DEAD_LETTERS


async def _list(config: Config, *, as_json: bool) -> int:
    async with inspecting(config) as inspection:
        found = [
            (place, decode_dead_letter(record.value)) async for place, record in inspection.unfinished(_is_letter, None)
        ]
        _print(found, inspection.place_name, as_json=as_json)
    return 0


def _print(found: list[tuple[str, DeadLetter]], place_name: str, *, as_json: bool) -> None:
    if as_json:
        for place, letter in found:
            fields = {place_name: place, "key": letter.key.decode(errors="replace"), "topic": letter.topic}
            print_json(
                {
                    **fields,
                    "stage": letter.stage,
                    "reason": letter.reason,
                    "failed_at": letter.failed_at,
                    "tries": letter.tries,
                }
            )
        return
    rows = [
        (
            place,
            letter.key.decode(errors="replace"),
            letter.topic,
            letter.stage,
            moment(letter.failed_at),
            letter.reason,
        )
        for place, letter in found
    ]
    header = (place_name, "message", "topic", "stage", "failed at", "why")
    print(table(header, rows) if rows else "there are no dead letters")


async def _reinject(config: Config) -> int:
    if config.log.kind == "kafka":
        given_back = await _reinject_on_kafka(config)
        print(f"{given_back} dead letters were given back to their stages")
        return 0
    given_back = 0
    for path in log_files(config):
        log = open_log(path, config.log)
        try:
            given_back += await _give_back(log, POLL_SECONDS)
        finally:
            await log.close()
    print(f"{given_back} dead letters were given back to their stages; start the system to process them")
    return 0


async def _reinject_on_kafka(config: Config) -> int:
    async with inspecting(config) as inspection:
        if not await inspection.count_unfinished(_is_letter):
            return 0
    from postrail.log.kafka import open_kafka_log  # noqa: PLC0415

    log = await open_kafka_log(config.log)
    try:
        return await _give_back(log, KAFKA_POLL_SECONDS)
    finally:
        await log.close()


async def _give_back(log: Log, silence_seconds: float) -> int:
    """Append all letters' records to their topics again; ends when nothing more comes for so long."""
    given_back = 0
    consumer = await log.consumer([topics.DEAD_LETTERS], GROUP)
    finished = await log.committed(GROUP, [topics.DEAD_LETTERS])
    trackers: dict[TopicPartition, Tracker] = {}
    while records := await consumer.poll(BATCH, silence_seconds):
        await log.transact([_original(record) for record in records], _commits(records, trackers, finished))
        given_back += len(records)
    await consumer.close()
    return given_back


def _original(record: Record) -> Append:
    letter = decode_dead_letter(record.value)
    return Append(letter.topic, letter.key, letter.value, record.body)


def _commits(
    records: list[Record], trackers: dict[TopicPartition, Tracker], finished: Mapping[TopicPartition, Progress]
) -> list[Commit]:
    for record in records:
        where = TopicPartition(record.topic, record.partition)
        if where not in trackers:
            progress = finished.get(where, Progress(record.offset))
            trackers[where] = Tracker(progress.low, progress.above)
        trackers[where].start(record.offset)
        trackers[where].finish(record.offset)
    return [Commit(GROUP, where, tracker.progress()) for where, tracker in trackers.items()]
