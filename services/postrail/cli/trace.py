"""`postrail trace`: tells a message's story, recipient by recipient, from its events.

The message is named by Postrail's id (the one in the `250` reply and in every log line) or by its Message-ID field.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable, Sequence

from postrail.cli.stores import add_config_option, duration, look, moment, print_json
from postrail.core import topics
from postrail.core.identity import is_message_id, made_at
from postrail.core.records import FINAL_EVENTS, Event, EventType
from postrail.core.units import parse_seconds
from postrail.log.inspect import Inspection
from postrail.wire.codec import decode_event

CLOCK_DIFFERENCE_SECONDS = 600.0
"""How far the brokers' clocks may be behind those of whoever makes ids."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("trace", help="tell a message's story", description=__doc__)
    parser.add_argument("message", metavar="MESSAGE-ID", help="Postrail's id, or the Message-ID field")
    parser.add_argument(
        "--since",
        type=ago,
        metavar="TIME",
        help="look at the last TIME only, such as 2h or 3d (a Message-ID on Kafka: 1d where not given)",
    )
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the story; 1 when there is no such message."""
    return look(args.config, lambda inspection: _run(args, inspection))


async def _run(args: argparse.Namespace, inspection: Inspection) -> int:
    stories = [await _events(inspection, message_id, args.since) for message_id in await _identify(inspection, args)]
    stories = [story for story in stories if story]
    if not stories:
        print(f"trace: no events of a message {args.message}{_since(inspection, args)}", file=sys.stderr)
        return 1
    for story in stories:
        if args.json:
            for event in story:
                print_json(as_json(event))
        else:
            print("\n".join(tell(story)))
    return 0


def ago(text: str) -> float:
    """`2h` → the Unix time of two hours ago."""
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    assert isinstance(seconds, float)
    return time.time() - seconds


def _since(inspection: Inspection, args: argparse.Namespace) -> str:
    """What a person should know of a search that found nothing."""
    if args.since is not None:
        return f" since {moment(args.since)}: it was never accepted here, or earlier: look further back with --since"
    if not is_message_id(args.message.lower()) and inspection.search_seconds is not None:
        back = duration(inspection.search_seconds)
        return f" in the last {back}: it was never accepted here, or earlier: look further back with --since"
    return ": it was never accepted here, or its events are older than log.keep_events_seconds"


async def _identify(inspection: Inspection, args: argparse.Namespace) -> list[str]:
    """The message ids that the name stands for; several when a client used a Message-ID twice."""
    if is_message_id(args.message.lower()):
        return [args.message.lower()]
    wanted = args.message.strip("<>")
    back = inspection.search_seconds
    since = args.since if args.since is not None else 0.0 if back is None else time.time() - back
    found: dict[str, None] = {}
    async for record in inspection.since(topics.EVENTS, since):
        if wanted.encode() in record.value:
            event = decode_event(record.value)
            if event.type is EventType.ACCEPTED and event.header_message_id == wanted:
                found[event.message_id] = None
    return list(found)


async def _events(inspection: Inspection, message_id: str, since: float | None) -> list[Event]:
    begin = made_at(message_id) - CLOCK_DIFFERENCE_SECONDS if since is None else since
    records = await inspection.keyed(topics.EVENTS, message_id.encode(), begin)
    return sorted([decode_event(record.value) for record in records], key=lambda event: event.at)


def as_json(event: Event) -> dict[str, object]:
    """An event's fields that say something."""
    said: dict[str, object] = {"type": event.type.name.lower(), "at": event.at, "message_id": event.message_id}
    said["recipients"] = list(event.recipients)
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name not in said and value:
            said[field.name] = str(value) if field.name in {"reply", "scope"} else value
    return said


def tell(story: Sequence[Event]) -> Iterable[str]:
    """The story of one message as lines for a person."""
    first = story[0]
    yield f"message {first.message_id}" + (f"  <{first.header_message_id}>" if first.header_message_id else "")
    sender = f"<{first.reverse_path}>"
    via = f"submitted by {first.submitter}" if first.submitter else "made by Postrail"
    size = f"{first.size_bytes:,} bytes" if first.size_bytes else "size unknown"
    yield f"  from {sender}, {via}, stream {first.stream or '-'}, {size}"
    recipients = dict.fromkeys(address for event in story for address in event.recipients)
    for address in recipients:
        own = [event for event in story if address in event.recipients]
        yield f"  to <{address}>: {_state(own)}"
        for event in own:
            yield f"    {moment(event.at)}  +{duration(max(0.0, event.at - first.at)):<8} {_sentence(event)}"


def _state(events: Sequence[Event]) -> str:
    for event in reversed(events):
        if event.type in FINAL_EVENTS:
            return event.type.name.lower()
    waiting = next((event for event in reversed(events) if event.due_at), None)
    return f"waits until {moment(waiting.due_at)}" if waiting else "under way"


def _sentence(event: Event) -> str:
    match event.type:
        case EventType.ACCEPTED:
            return "accepted"
        case EventType.ROUTED:
            source = f" from {event.source_address}" if event.source_address else ""
            return f"routed to site {event.site} (group {event.group}, pool {event.pool}){source}"
        case EventType.PARKED:
            return f"parked until {moment(event.due_at)}: {event.detail}"
        case EventType.NOTIFIED:
            return f"the sender was notified: {event.detail}"
    said = f": {event.reply}" if event.reply else ""
    text = f"{event.type.name.lower()}{said} (attempt {event.attempt}{_how(event)})"
    if event.due_at:
        text += f"; next attempt at {moment(event.due_at)}"
    return text + (f"; {event.detail}" if event.detail else "")


def _how(event: Event) -> str:
    parts = []
    if event.mx_host or event.mx_address:
        parts.append(f"{event.mx_host} [{event.mx_address}]" if event.mx_host else f"[{event.mx_address}]")
    if event.source_address:
        parts.append(f"from {event.source_address}")
    if event.mx_address:
        parts.append(event.tls or "in clear")
    if event.duration_seconds:
        parts.append(f"took {duration(event.duration_seconds)}")
    return "".join(f", {part}" for part in parts)
