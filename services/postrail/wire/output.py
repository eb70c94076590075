"""A settlement as appends: the only place that knows which topic each part of it goes to.

Owns the choice of topics and keys for events, deferrals and notifications. Decides nothing about mail (`core.settle`) and
stores nothing (`log`): the caller appends all of it in one transaction with its commit.
"""

from __future__ import annotations

from postrail.core.records import Event, EventType, Message
from postrail.core.settle import Settlement
from postrail.core.topics import ACCEPTED, EVENTS, deferred, laned
from postrail.log.interface import Append, Body
from postrail.wire import codec


def appends(settlement: Settlement, body: bytes | Body | None) -> list[Append]:
    """The records of a settlement.

    Args:
        settlement: of one delivery.
        body: what travels beside that delivery's record; None where it lies in the blob store. Kept by each deferral.
    Returns:
        Events without a body, deferrals with `body`, notifications on the topic accepted with a body of their own and the
        event ACCEPTED. All keys are message ids.
    """
    records = [event_append(event) for event in settlement.events]
    for tier_seconds, waiting in settlement.deferred:
        key = waiting.delivery.envelope.message_id.encode()
        records.append(Append(deferred(tier_seconds), key, codec.encode_deferred(waiting), body, waiting))
    for notice in settlement.notices:
        envelope = notice.message.envelope
        key = envelope.message_id.encode()
        value = codec.encode_message(notice.message)
        records.append(Append(laned(ACCEPTED, envelope.lane), key, value, notice.body, notice.message))
        records.append(event_append(_accepted(notice.message)))
    return records


def event_append(event: Event) -> Append:
    """One event as a record of the topic events."""
    return Append(EVENTS, event.message_id.encode(), codec.encode_event(event))


def _accepted(message: Message) -> Event:
    envelope = message.envelope
    return Event(
        EventType.ACCEPTED,
        envelope.received_at,
        envelope.message_id,
        tuple([recipient.address for recipient in envelope.recipients]),
        stream=envelope.stream,
        header_message_id=envelope.header_message_id,
        reverse_path=envelope.reverse_path,
        size_bytes=envelope.size_bytes,
        detail="notification",
    )
