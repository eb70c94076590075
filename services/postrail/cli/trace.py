"""`postrail trace`: tells a message's story, recipient by recipient, from its events.

The message is named by Postrail's id (the one in the `250` reply and in every log line) or by its Message-ID field.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.cli.stores import add_config_option, duration, moment, open_stores, print_json
from postrail.core import topics
from postrail.core.identity import is_message_id
from postrail.core.records import FINAL_EVENTS, Event, EventType
from postrail.log.interface import LogError
from postrail.log.sqlite import inspect
from postrail.shell.configuration import ConfigurationError
from postrail.wire.codec import decode_event


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("trace", help="tell a message's story", description=__doc__)
    parser.add_argument("message", metavar="MESSAGE-ID", help="Postrail's id, or the Message-ID field")
    add_config_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the story; 1 when there is no such message."""
    try:
        _, files = open_stores(args.config)
        stories = [_events(files, message_id) for message_id in _identify(files, args.message)]
    except (ConfigurationError, LogError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    stories = [story for story in stories if story]
    if not stories:
        print(
            f"trace: no events of a message {args.message}: it was never accepted here, or its events are older than "
            "log.keep_events_seconds",
            file=sys.stderr,
        )
        return 1
    for story in stories:
        if args.json:
            for event in story:
                print_json(as_json(event))
        else:
            print("\n".join(tell(story)))
    return 0


def _identify(files: Sequence[Path], name: str) -> list[str]:
    """The message ids that the name stands for; several when a client used a Message-ID twice."""
    if is_message_id(name.lower()):
        return [name.lower()]
    wanted = name.strip("<>")
    found: dict[str, None] = {}
    for path in files:
        for record in inspect.records(path, topics.EVENTS):
            if wanted.encode() in record.value:
                event = decode_event(record.value)
                if event.type is EventType.ACCEPTED and event.header_message_id == wanted:
                    found[event.message_id] = None
    return list(found)


def _events(files: Sequence[Path], message_id: str) -> list[Event]:
    found = [
        decode_event(record.value)
        for path in files
        for record in inspect.records_by_key(path, topics.EVENTS, message_id.encode())
    ]
    return sorted(found, key=lambda event: event.at)


def as_json(event: Event) -> dict[str, object]:
    """An event's fields that say something."""
    fields: dict[str, object] = {"type": event.type.name.lower(), "at": event.at, "message_id": event.message_id}
    fields["recipients"] = list(event.recipients)
    for name in Event.__slots__:
        value = getattr(event, name)
        if name not in fields and value:
            fields[name] = str(value) if name in {"reply", "scope"} else value
    return fields


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
