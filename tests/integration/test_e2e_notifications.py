"""What cannot be delivered comes back to the sender: as a notification that programs and people understand, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support.mail_world import LATE_ADDRESS, PASSWORD, REPAIRED_ZONE, SENDER_DOMAIN, USER, MailWorld
from tests.support.messages import DeliveryReport, body_of, message, read_report
from tests.support.postfix import MESSAGE_SIZE_LIMIT_BYTES
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.processes import daemon_folder, wait_for
from tests.support.smtp_tools import SmtpSink

NewSender = Callable[[], str]


def submit(postrail: PostrailProcess, sender: str, recipient: str, *, options: str = "", extra: str = "") -> str:
    """One message to one recipient, with its RCPT parameters; returns the queue id."""
    with submitting(postrail, USER, PASSWORD) as client:
        return send(client, sender, [(recipient, options)], message(sender, recipient, extra=extra))


def wait_for_report(world: MailWorld, sender: str, *, count: int = 1, which: int = -1) -> DeliveryReport:
    return read_report(world.dovecot.wait_for_mail(sender.partition("@")[0], count)[which])


def reports_of(world: MailWorld, sender: str) -> list[DeliveryReport]:
    return [read_report(received) for received in world.dovecot.mail_for(sender.partition("@")[0])]


def test_recipients_of_one_message_have_their_own_fates(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender = new_sender()
    good, later, unknown = "mixed-good@receiver.test", "mixed-later@receiver.test", "nobody-mixed@receiver.test"
    world.postfix.policy.answer(later, "450 4.7.1 Not yet", "450 4.7.1 Not yet", "DUNNO")
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, sender, [good, later, unknown], message(sender, good))
    world.postfix.wait_for_mail(good)
    world.postfix.wait_for_mail(later)
    report = wait_for_report(world, sender)
    (about,) = report.recipients
    assert about["Final-Recipient"] == f"rfc822;{unknown}"
    assert about["Action"] == "failed"
    assert about["Status"] == "5.1.1"
    assert "mx.receiver.test" in about["Remote-MTA"]
    assert about["Diagnostic-Code"].startswith("smtp;")
    assert "550" in about["Diagnostic-Code"]
    assert "User unknown" in about["Diagnostic-Code"]
    postrail.wait_for_event(queue_id, "delivered", later)
    events = postrail.events(queue_id)
    final = {event["recipients"][0]: event["type"] for event in events if event["type"] in {"delivered", "failed"}}
    assert final == {good: "delivered", later: "delivered", unknown: "failed"}
    assert len(world.postfix.mail_for(good)) == len(world.postfix.mail_for(later)) == 1
    assert len(world.postfix.policy.attempts_for(good)) == 1
    assert len(reports_of(world, sender)) == 1


def test_notification_has_the_fields_of_rfc_3464(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "nobody-fields@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(
            client,
            sender,
            [(recipient, "NOTIFY=FAILURE,DELAY ORCPT=rfc822;First+20Name@other.test")],
            message(sender, recipient, subject="Find me"),
            mail_options=["RET=HDRS", "ENVID=QQ+3D314159"],
        )
    report = wait_for_report(world, sender)
    assert report.message["Return-Path"] == "<>"
    assert report.message["To"] == sender
    assert report.message["Auto-Submitted"].startswith("auto-")
    assert report.message["From"].addresses[0].domain.endswith(SENDER_DOMAIN)
    assert "DKIM-Signature" in report.message
    assert report.about_message["Reporting-MTA"] == "dns;mail.sender.test"
    assert report.about_message["Original-Envelope-Id"] == "QQ=314159"
    assert report.about_message["Arrival-Date"]
    (about,) = report.recipients
    assert about["Original-Recipient"] == "rfc822;First Name@other.test"
    assert about["Final-Recipient"] == f"rfc822;{recipient}"
    assert report.returned.get_content_type() == "text/rfc822-headers"
    assert "Find me" in report.returned.as_string()
    assert "trailing spaces" not in report.returned.as_string()
    assert recipient in report.text


def test_ret_full_returns_the_whole_message(world: MailWorld, postrail: PostrailProcess, new_sender: NewSender) -> None:
    sender, recipient = new_sender(), "nobody-full@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, sender, [recipient], message(sender, recipient), mail_options=["RET=FULL"])
    report = wait_for_report(world, sender)
    assert report.returned.get_content_type() == "message/rfc822"
    assert "trailing spaces" in report.returned.as_string()


def test_notify_never_is_obeyed(world: MailWorld, postrail: PostrailProcess, new_sender: NewSender) -> None:
    sender = new_sender()
    queue_id = submit(postrail, sender, "nobody-never@receiver.test", options="NOTIFY=NEVER")
    postrail.wait_for_event(queue_id, "failed")
    submit(postrail, sender, "nobody-told@receiver.test")
    report = wait_for_report(world, sender)
    assert "nobody-told" in report.recipients[0]["Final-Recipient"]
    assert len(reports_of(world, sender)) == 1


def test_null_sender_is_never_notified(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "nobody-null@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, "", [recipient], message(f"app@{SENDER_DOMAIN}", recipient))
    postrail.wait_for_event(queue_id, "failed")
    assert not [event for event in postrail.events(queue_id) if event["type"] == "notified"]


def test_dsn_parameters_are_passed_on_to_a_peer_that_knows_them(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "passed-on@sink.test"
    options = "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@other.test"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(
            client,
            sender,
            [(recipient, options)],
            message(sender, recipient),
            mail_options=["RET=HDRS", "ENVID=abc+2Bd"],
        )
    (transaction,) = world.sink.wait_for_mail(recipient)
    assert {"RET=HDRS", "ENVID=abc+2Bd"} <= set(transaction.mail_arguments.split())
    assert set(transaction.recipient_arguments[0].split()[1:]) == set(options.split())
    postrail.wait_for_event(queue_id, "delivered")
    assert not [event for event in postrail.events(queue_id) if event["type"] == "notified"]


@contextlib.contextmanager
def late_sink(world: MailWorld, *options: str) -> Iterator[SmtpSink]:
    """Start the receiver of late.test."""
    with daemon_folder("late") as folder:
        sink = SmtpSink(folder, LATE_ADDRESS, world.mx_port, *options)
        sink.start()
        try:
            yield sink
        finally:
            sink.stop()


def test_success_is_reported_where_the_peer_cannot(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "success@late.test"
    with late_sink(world, "-N") as sink:
        submit(postrail, sender, recipient, options="NOTIFY=SUCCESS")
        (transaction,) = sink.wait_for_mail(recipient)
    assert "NOTIFY" not in transaction.recipient_arguments[0]
    (about,) = wait_for_report(world, sender).recipients
    assert about["Action"] == "relayed"
    assert about["Status"].startswith("2.")


def test_delay_is_reported_once_where_that_was_asked_for(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "delayed@receiver.test"
    world.postfix.policy.answer(recipient, *["450 4.7.1 Not yet"] * 6, "DUNNO")
    submit(postrail, sender, recipient, options="NOTIFY=DELAY,FAILURE")
    world.postfix.wait_for_mail(recipient)
    report = wait_for_report(world, sender)
    (about,) = report.recipients
    assert about["Action"] == "delayed"
    assert about["Status"].startswith("4.")
    assert about["Will-Retry-Until"]
    assert len(reports_of(world, sender)) == 1


@pytest.mark.parametrize(
    ("recipient", "status"),
    [
        ("info@nullmx.test", "5.1.10"),
        ("info@no-such-name.receiver.test", "5.1.2"),
    ],
    ids=["null MX", "NXDOMAIN"],
)
def test_domain_that_takes_no_mail_is_reported_at_once(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender, recipient: str, status: str
) -> None:
    sender = new_sender()
    queue_id = submit(postrail, sender, recipient)
    (about,) = wait_for_report(world, sender).recipients
    assert (about["Action"], about["Status"]) == ("failed", status)
    failed = postrail.wait_for_event(queue_id, "failed")
    assert status in failed["reply"]
    assert not [event for event in postrail.events(queue_id) if event["type"] == "deferred"]


def test_domain_with_broken_dns_waits_and_is_delivered_when_it_is_repaired(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "patient@broken.test"
    queue_id = submit(postrail, sender, recipient)

    def waiting() -> list[str]:
        return [row["reason"] for row in postrail.queue() if row["message_id"] == queue_id and row["attempts"]]

    (reason,) = wait_for("the deferral in the queue", waiting)
    assert "broken.test" in reason
    assert reason.startswith("451 4.4.3")
    world.dns.change("broken.test", REPAIRED_ZONE)
    assert len(world.postfix.wait_for_mail(recipient)) == 1
    postrail.wait_for_event(queue_id, "delivered")
    assert not [row for row in postrail.queue() if row["message_id"] == queue_id]
    assert not reports_of(world, sender)


def test_smtputf8_address_is_returned_where_the_peer_does_not_take_it(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "jürgen@sink.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, sender, [recipient], message(sender, recipient), mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    (about,) = wait_for_report(world, sender).recipients
    assert (about["Action"], about["Status"]) == ("failed", "5.6.7")
    assert recipient in about["Final-Recipient"]
    assert not world.sink.received_for(recipient)


def test_message_larger_than_the_peer_takes_is_returned(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), "large@receiver.test"
    body = b"0123456789" * 7 + b"\r\n"
    large = message(sender, recipient, body=body * (MESSAGE_SIZE_LIMIT_BYTES // len(body) + 100))
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, sender, [recipient], large)
    report = wait_for_report(world, sender)
    (about,) = report.recipients
    assert (about["Action"], about["Status"]) == ("failed", "5.3.4")
    assert len(body_of(report.message.as_bytes())) < 20_000
    assert not world.postfix.mail_for(recipient)


def test_message_that_cannot_be_delivered_in_its_lifetime_expires(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, brief = new_sender(), "X-Postrail-Stream: brief\r\n"
    queue_id = submit(postrail, sender, "info@down.test", extra=brief)
    with submitting(postrail, USER, PASSWORD) as client:
        recipient = "null@down.test"
        unanswered = send(client, "", [recipient], message(sender, recipient, extra=brief))
    (about,) = wait_for_report(world, sender).recipients
    assert (about["Action"], about["Status"]) == ("failed", "5.4.7")
    expired = postrail.wait_for_event(queue_id, "expired")
    assert 2.5 < expired["queued_seconds"] < 10
    postrail.wait_for_event(unanswered, "expired")
    assert not [event for event in postrail.events(unanswered) if event["type"] == "notified"]
    assert len(reports_of(world, sender)) == 1
