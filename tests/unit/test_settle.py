"""From results to events, deferrals and notifications."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.delivery_config import RetryConfig
from postrail.core.identity import delivery_id
from postrail.core.records import (
    FINAL_EVENTS,
    Delivery,
    Envelope,
    Event,
    EventType,
    Lane,
    MessageId,
    Notify,
    Recipient,
    Route,
    RouteKind,
)
from postrail.core.replies import PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.settle import (
    AMBIGUOUS_DETAIL,
    AttemptContext,
    Policy,
    RecipientResult,
    Settlement,
    expire,
    park,
    settle,
)

START = 1_750_000_000.0
DAY = 86400.0
POLICY = Policy(RetryConfig(), "mx.sender.example")
MESSAGE = MessageId("01hzzzzzzzzzzzzzzzzzzzzzzz")
ANN = Recipient("ann@rcpt.example")
BOB = Recipient("bob@rcpt.example")
EVE = Recipient("eve@rcpt.example")
OK = Reply(250, "2.0.0", "queued")
GREY = TemporaryFailure(Reply(450, "4.7.1", "Greylisted"), Scope.RECIPIENT)
BUSY = TemporaryFailure(Reply(421, "4.7.0", "Busy"), Scope.SITE)
UNKNOWN = PermanentFailure(Reply(550, "5.1.1", "No such user"), Scope.RECIPIENT)
ATTEMPT = AttemptContext(START + 10, 0.5, "mx1.rcpt.example", "192.0.2.1", "TLSv1.3 AES")


def delivery(*recipients: Recipient, reverse_path: str = "shop@sender.example") -> Delivery:
    envelope = Envelope(
        MESSAGE, reverse_path, recipients, "shop", "transactional", Lane.URGENT, START, START + 5 * DAY, 1000, tag="t1"
    )
    route = Route(RouteKind.MX, "rcpt.example", 25, "rcpt.example", "default", "default", "192.0.2.9")
    return Delivery(delivery_id(MESSAGE, recipients, 1), envelope, b"Subject: x\r\n", None, route)


def ok(recipient: Recipient) -> RecipientResult:
    return RecipientResult(recipient, None, OK)


def failed(recipient: Recipient, failure: TemporaryFailure | PermanentFailure) -> RecipientResult:
    return RecipientResult(recipient, failure, failure.reply)


def settled(
    of: Delivery, *results: RecipientResult, now: float = START + 11, attempt: AttemptContext = ATTEMPT
) -> Settlement:
    return settle(of, results, attempt, POLICY, now=now, jitter=0.0)


def kinds(settlement: Settlement) -> list[EventType]:
    return [event.type for event in settlement.events]


def only(settlement: Settlement, kind: EventType) -> Event:
    (event,) = [event for event in settlement.events if event.type is kind]
    return event


def test_delivered_is_one_event_with_all_that_is_known() -> None:
    settlement = settled(delivery(ANN), ok(ANN))
    assert (settlement.deferred, settlement.notices) == ((), ())
    (event,) = settlement.events
    assert event == Event(
        EventType.DELIVERED,
        START + 11,
        MESSAGE,
        ("ann@rcpt.example",),
        delivery_id(MESSAGE, [ANN], 1),
        "shop",
        "transactional",
        "t1",
        1,
        OK,
        None,
        "rcpt.example",
        "default",
        "default",
        "192.0.2.9",
        "mx1.rcpt.example",
        "192.0.2.1",
        "TLSv1.3 AES",
        0.5,
        11.0,
        reverse_path="shop@sender.example",
        size_bytes=1000,
    )


def test_mixed_replies_each_have_their_own_end() -> None:
    settlement = settled(delivery(ANN, BOB, EVE), ok(ANN), failed(BOB, GREY), failed(EVE, UNKNOWN))
    assert kinds(settlement) == [EventType.DELIVERED, EventType.FAILED, EventType.NOTIFIED, EventType.DEFERRED]
    assert only(settlement, EventType.DELIVERED).recipients == ("ann@rcpt.example",)
    assert only(settlement, EventType.FAILED).bounce_class == "invalid-recipient"
    ((tier, waiting),) = settlement.deferred
    assert tier == 300.0
    assert waiting.due_at == START + 311
    assert waiting.delivery.envelope.recipients == (BOB,)
    assert waiting.delivery.attempts == 1
    assert waiting.delivery.last_reply == GREY.reply
    assert waiting.delivery.last_attempt_at == START + 10
    assert waiting.delivery.delivery_id == delivery_id(MESSAGE, [BOB], 2)
    (notice,) = settlement.notices
    assert b"eve@rcpt.example" in notice.body
    assert b"bob@rcpt.example" not in notice.body


def test_same_fate_is_one_event_and_one_deferral() -> None:
    settlement = settled(delivery(ANN, BOB, EVE), failed(ANN, GREY), failed(BOB, GREY), failed(EVE, GREY))
    assert kinds(settlement) == [EventType.DEFERRED]
    ((_, waiting),) = settlement.deferred
    assert waiting.delivery.envelope.recipients == (ANN, BOB, EVE)


def test_texts_that_name_the_recipient_do_not_scatter_the_deferral() -> None:
    texts = [TemporaryFailure(Reply(450, "4.2.0", f"<{who.address}> later"), Scope.RECIPIENT) for who in (ANN, BOB)]
    settlement = settled(delivery(ANN, BOB), failed(ANN, texts[0]), failed(BOB, texts[1]))
    assert kinds(settlement) == [EventType.DEFERRED, EventType.DEFERRED]
    assert len(settlement.deferred) == 1


def test_one_notification_lists_all_that_failed() -> None:
    other = PermanentFailure(Reply(550, "5.2.1", "Disabled"), Scope.RECIPIENT)
    settlement = settled(delivery(ANN, BOB), failed(ANN, UNKNOWN), failed(BOB, other))
    (notice,) = settlement.notices
    assert notice.body.count(b"Final-Recipient:") == 2
    assert only(settlement, EventType.NOTIFIED).detail == f"failed {notice.message.envelope.message_id}"


def test_null_reverse_path_gets_events_and_no_notification() -> None:
    settlement = settled(delivery(ANN, reverse_path=""), failed(ANN, UNKNOWN))
    assert kinds(settlement) == [EventType.FAILED]
    assert settlement.notices == ()


def test_site_that_is_left_alone_delays_the_retry() -> None:
    attempt = ATTEMPT._replace(site_delay_seconds=3600.0)
    ((tier, waiting),) = settled(delivery(ANN), failed(ANN, BUSY), attempt=attempt).deferred
    assert (tier, waiting.due_at) == (3600.0, START + 11 + 3600)


def test_unanswered_final_dot_is_logged_as_ambiguous() -> None:
    settlement = settled(delivery(ANN), failed(ANN, BUSY)._replace(ambiguous=True))
    assert kinds(settlement) == [EventType.AMBIGUOUS, EventType.DEFERRED]
    assert settlement.events[0].detail == AMBIGUOUS_DETAIL


def test_only_who_was_undecided_after_the_dot_is_ambiguous() -> None:
    settlement = settled(delivery(ANN, BOB), failed(ANN, BUSY)._replace(ambiguous=True), failed(BOB, GREY))
    assert only(settlement, EventType.AMBIGUOUS).recipients == (ANN.address,)
    deferred = [event for event in settlement.events if event.type is EventType.DEFERRED]
    assert {address for event in deferred for address in event.recipients} == {ANN.address, BOB.address}


def test_failure_after_the_deadline_is_expired_with_547() -> None:
    settlement = settled(delivery(ANN), failed(ANN, GREY), now=START + 5 * DAY)
    assert kinds(settlement) == [EventType.EXPIRED, EventType.NOTIFIED]
    assert settlement.deferred == ()
    assert settlement.events[0].bounce_class == "expired"
    assert b"Status: 5.4.7" in settlement.notices[0].body
    assert b"Diagnostic-Code: smtp; 450 4.7.1 Greylisted" in settlement.notices[0].body


def test_success_after_the_deadline_is_a_success() -> None:
    assert kinds(settled(delivery(ANN), ok(ANN), now=START + 9 * DAY)) == [EventType.DELIVERED]


@pytest.mark.parametrize("reverse_path", ["shop@sender.example", ""])
def test_expire_without_an_attempt(reverse_path: str) -> None:
    waiting = replace(delivery(ANN, BOB, reverse_path=reverse_path), attempts=3, last_reply=GREY.reply)
    settlement = expire(waiting, POLICY, now=START + 5 * DAY)
    assert settlement.events[0].type is EventType.EXPIRED
    assert settlement.events[0].recipients == ("ann@rcpt.example", "bob@rcpt.example")
    assert settlement.events[0].attempt == 3
    assert len(settlement.notices) == (1 if reverse_path else 0)
    if reverse_path:
        assert settlement.notices[0].body.count(b"Status: 5.4.7") == 2


def test_expire_before_any_attempt() -> None:
    settlement = expire(delivery(ANN), POLICY, now=START + 5 * DAY)
    assert kinds(settlement) == [EventType.EXPIRED, EventType.NOTIFIED]
    assert b"Last-Attempt-Date" not in settlement.notices[0].body


def test_parked_counts_no_attempt_and_keeps_its_id() -> None:
    of = delivery(ANN, BOB)
    settlement = park(of, 1000.0, "the site takes no more now", POLICY, now=START + 5)
    ((tier, waiting),) = settlement.deferred
    assert (tier, waiting.due_at) == (3600.0, START + 1005)
    assert waiting.delivery == replace(of, parks=1)
    event = only(settlement, EventType.PARKED)
    assert (event.attempt, event.due_at, event.detail) == (0, START + 1005, "the site takes no more now")


def test_each_parking_counts_until_the_next_attempt() -> None:
    ((_, twice),) = park(replace(delivery(ANN), parks=1), 60.0, "busy", POLICY, now=START).deferred
    assert twice.delivery.parks == 2
    ((_, tried),) = settled(twice.delivery, failed(ANN, GREY)).deferred
    assert (tried.delivery.parks, tried.delivery.attempts) == (0, 1)


def test_a_repeat_makes_the_same_notification() -> None:
    of = delivery(ANN, BOB)
    one, other = (settled(of, failed(ANN, UNKNOWN), ok(BOB), now=START + late) for late in (11, 99))
    assert one.notices[0].message.envelope.message_id == other.notices[0].message.envelope.message_id
    of_bob = settled(of, ok(ANN), failed(BOB, UNKNOWN))
    assert one.notices[0].message.envelope.message_id != of_bob.notices[0].message.envelope.message_id


def test_parked_no_longer_than_the_deadline() -> None:
    ((tier, waiting),) = park(delivery(ANN), 4 * 3600.0, "busy", POLICY, now=START + 5 * DAY - 10).deferred
    assert (tier, waiting.due_at) == (60.0, START + 5 * DAY)


def test_warning_of_a_delay_once_and_only_where_asked_for() -> None:
    asks = Recipient("ann@rcpt.example", Notify.DELAY | Notify.FAILURE)
    early = settled(delivery(asks, BOB), failed(asks, GREY), failed(BOB, GREY))
    assert early.notices == ()
    ((_, waiting),) = early.deferred
    assert waiting.delivery.delay_notified is False
    late = settled(waiting.delivery, failed(asks, GREY), failed(BOB, GREY), now=START + 4 * 3600)
    (notice,) = late.notices
    assert b"Action: delayed" in notice.body
    assert b"Will-Retry-Until" in notice.body
    assert notice.body.count(b"Final-Recipient") == 1
    ((_, waiting),) = late.deferred
    assert waiting.delivery.delay_notified is True
    assert settled(waiting.delivery, failed(asks, GREY), failed(BOB, GREY), now=START + 5 * 3600).notices == ()


@pytest.mark.parametrize(
    ("kind", "supports", "action"),
    [
        (RouteKind.MX, False, b"Action: relayed"),
        (RouteKind.MX, True, None),
        (RouteKind.LMTP, False, b"Action: delivered"),
        (RouteKind.LMTP, True, b"Action: delivered"),
    ],
)
def test_success_is_ours_to_tell_where_nobody_else_does(kind: RouteKind, supports: bool, action: bytes | None) -> None:
    asks = Recipient("ann@rcpt.example", Notify.SUCCESS)
    of = delivery(asks)
    assert of.route is not None
    of = replace(of, route=replace(of.route, kind=kind))
    settlement = settled(of, ok(asks), attempt=ATTEMPT._replace(remote_supports_dsn=supports))
    assert len(settlement.notices) == (1 if action else 0)
    assert all(action in notice.body for notice in settlement.notices if action)


def test_internal_text_is_not_shown_as_a_servers() -> None:
    ours = TemporaryFailure(Reply(451, "4.4.1", "No host answered"), Scope.SITE, internal=True)
    settlement = settled(delivery(ANN), failed(ANN, ours), now=START + 5 * DAY)
    assert b"Diagnostic-Code: X-Postrail; 451 4.4.1 No host answered" in settlement.notices[0].body
    assert b"Remote-MTA" not in settlement.notices[0].body


@given(
    st.lists(st.sampled_from([None, GREY, BUSY, UNKNOWN]), min_size=1, max_size=20),
    st.floats(0, 6 * DAY),
    st.booleans(),
)
def test_every_recipient_has_exactly_one_fate(
    failures: list[TemporaryFailure | PermanentFailure | None], age: float, null: bool
) -> None:
    recipients = tuple(Recipient(f"r{index}@rcpt.example") for index in range(len(failures)))
    results = [
        RecipientResult(recipient, failure, None) for recipient, failure in zip(recipients, failures, strict=True)
    ]
    of = delivery(*recipients, reverse_path="" if null else "shop@sender.example")
    settlement = settle(of, results, ATTEMPT, POLICY, now=START + age, jitter=0.5)
    ends = Counter(who for event in settlement.events if event.type in FINAL_EVENTS for who in event.recipients)
    ends.update(who.address for _, waiting in settlement.deferred for who in waiting.delivery.envelope.recipients)
    assert ends == {recipient.address: 1 for recipient in recipients}
    told = [recipient for notice in settlement.notices for recipient in notice.message.envelope.recipients]
    assert len(told) == len(settlement.notices) <= (0 if null else 2)
