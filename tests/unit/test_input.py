"""Records as values: from the object that came with the append, or from the bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postrail.core.identity import delivery_id, new_message_id
from postrail.core.records import Deferred, Delivery, Envelope, Lane, Message, Recipient
from postrail.log.interface import Record
from postrail.wire import codec
from postrail.wire.input import deferred_of, delivery_of, message_of

MESSAGE_ID = new_message_id(1_800_000_000.0, bytes(10))
TO = (Recipient("u@rcpt.test"),)
ENVELOPE = Envelope(MESSAGE_ID, "s@sender.test", TO, "app", "transactional", Lane.URGENT, 1.5, 2.5, 100)
HEADER_BLOCK = b"From: s@sender.test\r\n"
MESSAGE = Message(ENVELOPE, HEADER_BLOCK)
DELIVERY = Delivery(delivery_id(MESSAGE_ID, TO, 1), ENVELOPE, HEADER_BLOCK, None, None)
DEFERRED = Deferred(DELIVERY, 3.0, 4.0, "451 4.3.0 later")


@pytest.mark.parametrize(
    ("read", "known", "value"),
    [
        (message_of, MESSAGE, codec.encode_message(MESSAGE)),
        (delivery_of, DELIVERY, codec.encode_delivery(DELIVERY)),
        (deferred_of, DEFERRED, codec.encode_deferred(DEFERRED)),
    ],
)
def test_the_object_is_taken_where_it_is_and_the_bytes_say_the_same(
    read: Callable[[Record], object], known: object, value: bytes
) -> None:
    record = Record("topic", 0, 0, b"key", value, None, 0.0)
    assert read(record) == known
    record.value, record.decoded = b"\xff", known
    assert read(record) is known
    record.decoded = "something else"
    with pytest.raises(codec.UndecodableRecord):
        read(record)
