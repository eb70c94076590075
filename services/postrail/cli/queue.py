"""`postrail queue`: what waits, for where, since when and why.

Reads what is not finished of the mail topics: works beside a running system and without one. On Kafka, where every record comes
with its body, a long queue is shown in part, and said to be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from postrail.cli.stores import add_config_option, duration, look, moment, print_json, table
from postrail.core import topics
from postrail.core.records import Delivery, Envelope
from postrail.log.inspect import Inspection
from postrail.log.interface import Record
from postrail.wire import codec

TO_BE_SENT = "to be sent"


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message, or one delivery of it, that is not finished."""

    stage: str
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    site: str
    since: float
    due_at: float
    attempts: int
    size_bytes: int
    reason: str
    source: str = ""
    """The address from which it is about to leave; "" while that is not decided, or will be decided again."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("queue", help="show what waits, for where, since when and why", description=__doc__)
    parser.add_argument("--messages", action="store_true", help="a line for each message instead of each site")
    parser.add_argument("--site", help="only this site")
    parser.add_argument("--source", metavar="IP", help="only what is about to leave from this address")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="look at so many records at most (on Kafka 20000 if not given)"
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the queue; an empty one is said to be empty."""
    return look(args.config, lambda inspection: _run(args, inspection))


async def _run(args: argparse.Namespace, inspection: Inspection) -> int:
    limit = args.limit if args.limit is not None else inspection.usual_limit
    total = 0 if limit is None else await inspection.count_unfinished(topics.holds_mail)
    seen = 0
    found: list[Waiting] = []
    async for _, record in inspection.unfinished(topics.holds_mail, limit):
        seen += 1
        item = as_waiting(record)
        if args.site in {None, item.site} and args.source in {None, item.source}:
            found.append(item)
    if args.messages:
        _print_messages(sorted(found, key=lambda item: item.since), as_json=args.json)
    else:
        _print_sites(found, as_json=args.json)
    if seen < total and limit is not None and total > limit:
        print(
            f"queue: {seen:,} of {total:,} were looked at, the oldest of each partition; --limit N looks at more",
            file=sys.stderr,
        )
    return 0


def as_waiting(record: Record) -> Waiting:
    """What a record of a mail topic says of the mail that waits."""
    base = topics.base_of(record.topic)
    try:
        if base in {topics.ACCEPTED, topics.ASIDE, topics.SIGNED}:
            stage = "to be routed" if base == topics.SIGNED else "to be signed"
            return _of_envelope(stage, codec.decode_message(record.value).envelope)
        if base == topics.DEAD_LETTERS:
            letter = codec.decode_dead_letter(record.value)
            key = letter.key.decode(errors="replace")
            reason = f"dead letter of {letter.stage}: {letter.reason}"
            return Waiting("dead letter", key, "", (), "", letter.failed_at, 0.0, letter.tries, 0, reason)
        if base.startswith("deferred."):
            deferred = codec.decode_deferred(record.value)
            return _of_delivery("deferred", deferred.delivery, deferred.due_at, deferred.reason)
        return _of_delivery("due" if base == topics.DUE else TO_BE_SENT, codec.decode_delivery(record.value))
    except codec.UndecodableRecord as error:
        return Waiting(
            "unreadable", record.key.decode(errors="replace"), "", (), "", record.appended_at, 0, 0, 0, str(error)
        )


def _of_envelope(stage: str, envelope: Envelope) -> Waiting:
    return Waiting(
        stage,
        envelope.message_id,
        envelope.reverse_path,
        tuple(recipient.address for recipient in envelope.recipients),
        "",
        envelope.received_at,
        0.0,
        0,
        envelope.size_bytes,
        "",
    )


def _of_delivery(stage: str, delivery: Delivery, due_at: float = 0.0, reason: str = "") -> Waiting:
    envelope = delivery.envelope
    return Waiting(
        stage,
        envelope.message_id,
        envelope.reverse_path,
        tuple(recipient.address for recipient in envelope.recipients),
        delivery.route.site if delivery.route else "",
        envelope.received_at,
        due_at,
        delivery.attempts,
        envelope.size_bytes,
        reason or (str(delivery.last_reply) if delivery.last_reply else ""),
        delivery.route.source_address if delivery.route and stage == TO_BE_SENT else "",
    )


def _print_messages(found: Sequence[Waiting], *, as_json: bool) -> None:
    now = time.time()
    if as_json:
        for item in found:
            print_json({name: getattr(item, name) for name in Waiting.__slots__})
        return
    rows = [
        (
            item.message_id,
            item.stage,
            item.site or "-",
            duration(max(0.0, now - item.since)),
            moment(item.due_at) if item.due_at else "now",
            str(item.attempts),
            f"<{item.sender}> → {', '.join(item.recipients[:3])}{' …' if len(item.recipients) > 3 else ''}",
            item.reason or "-",
        )
        for item in found
    ]
    _print(("message", "stage", "site", "age", "next", "attempts", "from → to", "why"), rows)


def _print_sites(found: Sequence[Waiting], *, as_json: bool) -> None:
    now = time.time()
    groups: dict[tuple[str, str], list[Waiting]] = {}
    for item in found:
        groups.setdefault((item.stage, item.site), []).append(item)
    rows: list[tuple[str, ...]] = []
    for (stage, site), items in sorted(groups.items()):
        oldest = min(item.since for item in items)
        dues = [item.due_at for item in items if item.due_at]
        recipients = sum(len(item.recipients) for item in items)
        reasons = [item.reason for item in items if item.reason]
        why = max(set(reasons), key=reasons.count) if reasons else ""
        if as_json:
            row = {"stage": stage, "site": site, "deliveries": len(items), "recipients": recipients, "oldest": oldest}
            print_json({**row, "next": min(dues, default=0.0), "reason": why})
        else:
            due = moment(min(dues)) if dues else "now"
            age = duration(max(0.0, now - oldest))
            rows.append((stage, site or "-", str(len(items)), str(recipients), age, due, why or "-"))
    if not as_json:
        _print(("stage", "site", "deliveries", "recipients", "oldest", "next", "most frequent reason"), rows)


def _print(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print(table(header, rows) if rows else "the queue is empty")
