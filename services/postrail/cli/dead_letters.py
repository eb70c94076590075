"""`postrail dead-letters`: lists the records that a stage could not process, and gives them back to it.

Listing works beside a running system. Giving back writes to the log, so the system must be stopped; the letters then count
as finished for the group `reinjection`, and leave `postrail queue`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_UNAVAILABLE
from postrail.cli.stores import add_config_option, moment, open_stores, print_json, table
from postrail.core import topics
from postrail.core.config import Config
from postrail.core.records import DeadLetter
from postrail.log.interface import Append, Commit, LogError, Record, TopicPartition
from postrail.log.progress import Tracker
from postrail.log.sqlite import inspect, open_log
from postrail.shell.configuration import ConfigurationError
from postrail.wire.codec import decode_dead_letter

GROUP = "reinjection"
BATCH = 100
POLL_SECONDS = 0.2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "dead-letters", help="list records that could not be processed, or give them back", description=__doc__
    )
    parser.add_argument(
        "--reinject", action="store_true", help="give all back to their stages; the system must be stopped"
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or give back; 69 when the system is running and so holds its log."""
    try:
        config, files = open_stores(args.config)
        if args.reinject:
            return asyncio.run(_reinject(config, files))
        _print([(path, letter) for path in files for letter in letters(path)], as_json=args.json)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    except LogError as error:
        print(f"dead-letters: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


def letters(path: Path) -> Iterator[DeadLetter]:
    """The letters of one worker's log that were not given back."""
    for record in inspect.pending(path, topics.DEAD_LETTERS, [GROUP]):
        yield decode_dead_letter(record.value)


def _print(found: list[tuple[Path, DeadLetter]], *, as_json: bool) -> None:
    if as_json:
        for path, letter in found:
            fields = {"worker": path.parent.name, "key": letter.key.decode(errors="replace"), "topic": letter.topic}
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
            path.parent.name,
            letter.key.decode(errors="replace"),
            letter.topic,
            letter.stage,
            moment(letter.failed_at),
            letter.reason,
        )
        for path, letter in found
    ]
    header = ("worker", "message", "topic", "stage", "failed at", "why")
    print(table(header, rows) if rows else "there are no dead letters")


async def _reinject(config: Config, files: list[Path]) -> int:
    given_back = 0
    for path in files:
        log = open_log(path, config.log)
        try:
            consumer = await log.consumer([topics.DEAD_LETTERS], GROUP)
            trackers: dict[TopicPartition, Tracker] = {}
            while records := await consumer.poll(BATCH, POLL_SECONDS):
                appends = [_original(record) for record in records]
                await log.transact(appends, _commits(records, trackers))
                given_back += len(appends)
            await consumer.close()
        finally:
            await log.close()
    print(f"{given_back} dead letters were given back to their stages; start the system to process them")
    return 0


def _original(record: Record) -> Append:
    letter = decode_dead_letter(record.value)
    return Append(letter.topic, letter.key, letter.value, record.body)


def _commits(records: list[Record], trackers: dict[TopicPartition, Tracker]) -> list[Commit]:
    for record in records:
        tracker = trackers.setdefault(TopicPartition(record.topic, record.partition), Tracker(record.offset))
        tracker.start(record.offset)
        tracker.finish(record.offset)
    return [Commit(GROUP, where, tracker.progress()) for where, tracker in trackers.items()]
