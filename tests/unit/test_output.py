"""Which topic each part of a settlement goes to."""

from postrail.core.delivery_config import RetryConfig
from postrail.core.records import Delivery, DeliveryId, Envelope, EventType, Lane, MessageId, Recipient
from postrail.core.replies import PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.settle import AttemptContext, Policy, RecipientResult, settle
from postrail.wire import codec
from postrail.wire.output import appends

GREY = TemporaryFailure(Reply(450, "4.7.1", "Greylisted"), Scope.RECIPIENT)
UNKNOWN = PermanentFailure(Reply(550, "5.1.1", "No such user"), Scope.RECIPIENT)


def test_each_record_goes_to_its_topic_with_its_body() -> None:
    ann, bob, eve = (Recipient(f"{name}@rcpt.example") for name in ("ann", "bob", "eve"))
    message_id = MessageId("01hzzzzzzzzzzzzzzzzzzzzzzz")
    envelope = Envelope(message_id, "s@s.example", (ann, bob, eve), "shop", "t", Lane.URGENT, 1000.0, 90_000.0, 10)
    settlement = settle(
        Delivery(DeliveryId("d"), envelope, b"Subject: x\r\n", None, None),
        [RecipientResult(ann, None, None), RecipientResult(bob, GREY, None), RecipientResult(eve, UNKNOWN, None)],
        AttemptContext(1001.0),
        Policy(RetryConfig(), "mx.example"),
        now=1002.0,
        jitter=0.0,
    )
    found = appends(settlement, b"the body")
    by_topic = {topic: [append for append in found if append.topic == topic] for topic in {a.topic for a in found}}
    assert by_topic.keys() == {"events", "deferred.300s", "accepted.urgent"}

    (deferral,) = by_topic["deferred.300s"]
    assert (deferral.key, deferral.body) == (message_id.encode(), b"the body")
    assert codec.decode_deferred(deferral.value) == settlement.deferred[0][1]

    (notice,) = by_topic["accepted.urgent"]
    assert notice.body == settlement.notices[0].body
    assert codec.decode_message(notice.value) == settlement.notices[0].message

    events = [codec.decode_event(append.value) for append in by_topic["events"]]
    assert all(append.body is None for append in by_topic["events"])
    assert [append.key for append in by_topic["events"]] == [event.message_id.encode() for event in events]
    assert tuple(events[:-1]) == settlement.events
    assert events[-1].type is EventType.ACCEPTED
    assert events[-1].message_id == settlement.notices[0].message.envelope.message_id
    assert {event.bounce_class for event in events} == {"", "transient", "invalid-recipient"}
