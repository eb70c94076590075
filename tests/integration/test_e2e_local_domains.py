"""Mail of local domains goes to a real Dovecot over LMTP, each recipient with the answer that Dovecot gave it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.mail_world import FULL_MAILBOX, PASSWORD, SENDER_DOMAIN, SOCKET_DOMAIN, USER, MailWorld
from tests.support.messages import BODY, body_of, header_of, message, read_report
from tests.support.postrail_process import PostrailProcess, send, submitting

NewSender = Callable[[], str]


@pytest.mark.parametrize("domain", [SENDER_DOMAIN, SOCKET_DOMAIN], ids=["tcp", "unix socket"])
def test_local_recipient_finds_the_mail_in_the_mailbox(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender, domain: str
) -> None:
    sender = new_sender()
    mailbox = new_sender().partition("@")[0]
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, sender, [f"{mailbox}@{domain}"], message(sender, f"{mailbox}@{domain}"))
    (received,) = world.dovecot.wait_for_mail(mailbox)
    assert body_of(received) == BODY
    assert header_of(received)["Return-Path"] == f"<{sender}>"
    event = postrail.wait_for_event(queue_id, "delivered")
    assert event["reply"].startswith("250 2.0.0")
    assert event["reply"].endswith("Saved")


def test_each_local_recipient_has_its_own_answer(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, good = new_sender(), new_sender()
    full = f"{FULL_MAILBOX}@{SENDER_DOMAIN}"
    unknown = f"unknown@{SENDER_DOMAIN}"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, sender, [good, full, unknown], message(sender, good))
    assert len(world.dovecot.wait_for_mail(good.partition("@")[0])) == 1
    postrail.wait_for_event(queue_id, "failed", full)
    postrail.wait_for_event(queue_id, "failed", unknown)
    received = world.dovecot.wait_for_mail(sender.partition("@")[0])
    statuses = {about["Final-Recipient"]: about["Status"] for one in received for about in read_report(one).recipients}
    assert statuses == {f"rfc822;{full}": "5.2.2", f"rfc822;{unknown}": "5.1.1"}
    assert not world.dovecot.mail_for(FULL_MAILBOX)


def test_success_is_reported_for_a_local_mailbox(
    world: MailWorld, postrail: PostrailProcess, new_sender: NewSender
) -> None:
    sender, recipient = new_sender(), new_sender()
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, sender, [(recipient, "NOTIFY=SUCCESS")], message(sender, recipient))
    (received,) = world.dovecot.wait_for_mail(sender.partition("@")[0])
    (about,) = read_report(received).recipients
    assert (about["Action"], about["Status"]) == ("delivered", "2.0.0")


def test_mail_waits_while_the_store_is_down(world: MailWorld, postrail: PostrailProcess, new_sender: NewSender) -> None:
    sender, recipient = new_sender(), new_sender()
    world.dovecot.stop()
    try:
        with submitting(postrail, USER, PASSWORD) as client:
            queue_id = send(client, sender, [recipient], message(sender, recipient))
        postrail.wait_for_event(queue_id, "deferred")
    finally:
        world.dovecot.start()
    assert len(world.dovecot.wait_for_mail(recipient.partition("@")[0])) == 1
    assert not world.dovecot.mail_for(sender.partition("@")[0])
