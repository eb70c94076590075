"""The ledger: it must notice what it is there for."""

from hashlib import sha256

from postrail.core.delivery_config import RetryConfig
from postrail.core.records import Delivery, DeliveryId, Envelope, Lane, MessageId, Recipient
from postrail.core.replies import PermanentFailure, Reply, Scope
from postrail.core.settle import AttemptContext, Policy, RecipientResult, settle
from postrail.demo.ledger import Bounce, Entry, Ledger, body_digest, bounces_in, ledger_id_of

BODY = sha256(b"body").digest()
OTHER = sha256(b"another body").digest()


def bounce(ledger_id: str, recipient: str) -> Bounce:
    return Bounce(Entry(ledger_id, recipient), "5.1.1", "550 5.1.1 no")


def test_delivered_once_is_even() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "Ann@rcpt.example", BODY)
    assert ledger.open_entries == {Entry("m1", "ann@rcpt.example")}
    ledger.received("m1", "ann@RCPT.example", BODY)
    balance = ledger.balance()
    assert (balance.accepted, balance.delivered, ledger.open_count) == (1, 1, 0)
    assert balance.is_even


def test_arrival_before_the_250_is_seen_counts_too() -> None:
    ledger = Ledger()
    ledger.offered("m1", BODY)
    ledger.received("m1", "ann@rcpt.example", BODY)
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    assert ledger.open_count == 0
    assert ledger.balance().is_even


def test_loss_is_noticed() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    ledger.submitted("m1", "bob@rcpt.example", BODY)
    ledger.received("m1", "ann@rcpt.example", BODY)
    balance = ledger.balance()
    assert balance.lost == (Entry("m1", "bob@rcpt.example"),)
    assert not balance.is_even


def test_what_is_still_queued_is_not_lost() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    balance = ledger.balance([Entry("m1", "Ann@rcpt.example"), Entry("m9", "x@rcpt.example")])
    assert (balance.queued, balance.lost) == (1, ())
    assert balance.is_even


def test_delivered_but_still_in_the_queue_counts_once() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    ledger.received("m1", "ann@rcpt.example", BODY)
    balance = ledger.balance([Entry("m1", "ann@rcpt.example")])
    assert (balance.delivered, balance.queued) == (1, 0)


def test_bounce_settles() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    ledger.bounced(bounce("m1", "ann@rcpt.example"))
    balance = ledger.balance()
    assert (balance.bounced, balance.delivered, balance.lost) == (1, 0, ())
    assert balance.is_even


def test_bounced_although_delivered_is_noticed() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    ledger.received("m1", "ann@rcpt.example", BODY)
    ledger.bounced(bounce("m1", "ann@rcpt.example"))
    balance = ledger.balance()
    assert balance.bounced_and_delivered == 1
    assert not balance.is_even


def test_duplicates_are_counted() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    for _ in range(3):
        ledger.received("m1", "ann@rcpt.example", BODY)
    assert ledger.balance().duplicates == 2
    assert ledger.copies("m1", "ann@rcpt.example") == 3
    assert not ledger.balance().is_even


def test_changed_body_is_noticed() -> None:
    ledger = Ledger()
    ledger.submitted("m1", "ann@rcpt.example", BODY)
    ledger.received("m1", "ann@rcpt.example", OTHER)
    assert ledger.balance().altered == 1
    assert not ledger.balance().is_even


def test_changed_body_is_noticed_before_the_250() -> None:
    ledger = Ledger()
    ledger.offered("m1", BODY)
    ledger.received("m1", "ann@rcpt.example", OTHER)
    assert ledger.balance().altered == 1


def test_without_250_one_copy_is_allowed() -> None:
    ledger = Ledger()
    ledger.offered("m1", BODY)
    ledger.received("m1", "ann@rcpt.example", BODY)
    assert ledger.balance().is_even
    ledger.received("m1", "ann@rcpt.example", BODY)
    assert ledger.balance().unaccepted_repeats == 1
    assert not ledger.balance().is_even


def test_id_of_a_message() -> None:
    assert ledger_id_of(b"From: a\r\nX-Ledger-Id: m-17\r\nTo: b\r\n") == "m-17"
    assert ledger_id_of(b"X-Ledger-Id:m-17\r\n\r\nbody") == "m-17"
    assert ledger_id_of(b"Subject: X-Ledger-Id: m-17\r\n") is None


def test_body_digest_leaves_out_the_header_block() -> None:
    assert body_digest(b"A: 1\r\n\r\nbody") == body_digest(b"B: 2\r\nA: 1\r\n\r\nbody") == BODY


def test_notifications_name_the_failed_recipients() -> None:
    recipients = (Recipient("Ann@rcpt.example"), Recipient("bob@rcpt.example"))
    envelope = Envelope(
        MessageId("0" * 26), "shop@sender.example", recipients, "shop", "t", Lane.BULK, 1000.0, 90_000.0, 10
    )
    gone = PermanentFailure(Reply(550, "5.1.1", "No such user"), Scope.RECIPIENT)
    settlement = settle(
        Delivery(DeliveryId("d"), envelope, b"Subject: x\r\nX-Ledger-Id: m1\r\n", None, None),
        [RecipientResult(recipient, gone, None) for recipient in recipients],
        AttemptContext(1001.0, mx_host="mx.rcpt.example"),
        Policy(RetryConfig(), "mx.sender.example"),
        now=1002.0,
        jitter=0.0,
    )
    (notice,) = settlement.notices
    found = bounces_in(notice.message.header_block + b"\r\n" + notice.body)
    assert found == [
        Bounce(Entry("m1", "ann@rcpt.example"), "5.1.1", "550 5.1.1 No such user"),
        Bounce(Entry("m1", "bob@rcpt.example"), "5.1.1", "550 5.1.1 No such user"),
    ]


def test_other_mail_is_no_bounce() -> None:
    assert bounces_in(b"Subject: x\r\n\r\nbody") == []
