"""Records as the values that they hold: the mirror of `postrail.wire.output`.

Owns the choice between the object that came with the append, where the log still has it, and decoding the bytes. Both are
the same value, so nobody downstream can tell the difference. Every error leaves here as `codec.UndecodableRecord`.
"""

from __future__ import annotations

from postrail.core.records import Deferred, Delivery, Message
from postrail.log.interface import Record
from postrail.wire import codec


def message_of(record: Record) -> Message:
    """The message of a record of the topics accepted and signed; raises UndecodableRecord."""
    known = record.decoded
    return known if isinstance(known, Message) else codec.decode_message(record.value)


def delivery_of(record: Record) -> Delivery:
    """The delivery of a record of the outbound topics and of due; raises UndecodableRecord."""
    known = record.decoded
    return known if isinstance(known, Delivery) else codec.decode_delivery(record.value)


def deferred_of(record: Record) -> Deferred:
    """The deferral of a record of the tiers; raises UndecodableRecord."""
    known = record.decoded
    return known if isinstance(known, Deferred) else codec.decode_deferred(record.value)
