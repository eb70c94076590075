"""Mail goes through: from a client's submission to the mailbox of a real receiver, signed, encrypted, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mail_world import (
    IDNA_DOMAIN,
    PASSWORD,
    RSA_SELECTOR,
    SENDER_DOMAIN,
    SOURCE_ADDRESS,
    USER,
    MailWorld,
)
from tests.support.messages import BODY, body_of, header_of, message
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.smtp_tools import SignatureResult, swaks, verify_with_mail_dkim, verify_with_opendkim

SENDER = f"app@{SENDER_DOMAIN}"
SIGNED = SignatureResult(SENDER_DOMAIN, RSA_SELECTOR, "rsa-sha256", "pass")


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["starttls", "tls"])
def test_authenticated_submission_arrives_unchanged_and_signed(
    world: MailWorld, postrail: PostrailProcess, tmp_path: Path, *, implicit_tls: bool
) -> None:
    recipient = f"unchanged-{implicit_tls}@receiver.test".lower()
    with submitting(postrail, USER, PASSWORD, implicit_tls=implicit_tls) as client:
        queue_id = send(client, SENDER, [recipient], message(SENDER, recipient))
    (received,) = world.postfix.wait_for_mail(recipient)
    assert body_of(received) == BODY
    assert SIGNED in verify_with_mail_dkim(received, world.dns.host, world.dns.port)
    assert f"verification (s={RSA_SELECTOR}, d={SENDER_DOMAIN}, 2048-bit key) succeeded" in verify_with_opendkim(
        received, world.dkim_records, tmp_path
    )
    header = header_of(received)
    assert header["Return-Path"] == f"<{SENDER}>"
    assert header["Date"]
    assert header["Message-ID"]
    event = postrail.wait_for_event(queue_id, "delivered")
    assert event["recipients"] == [recipient]
    assert event["source_address"] == SOURCE_ADDRESS
    assert event["mx_host"] == "mx.receiver.test"
    assert event["tls"].startswith("TLSv1.3")
    (attempt,) = world.postfix.policy.attempts_for(recipient)
    assert (attempt.client_address, attempt.helo_name) == (SOURCE_ADDRESS, "out1.sender.test")
    assert attempt.tls == "TLSv1.3"


def test_signature_of_a_changed_body_does_not_verify(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "tampered@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, SENDER, [recipient], message(SENDER, recipient))
    (received,) = world.postfix.wait_for_mail(recipient)
    results = verify_with_mail_dkim(received.replace(b"The end", b"An end"), world.dns.host, world.dns.port)
    assert results
    assert [result.result for result in results if result.selector == RSA_SELECTOR] == ["fail (body has been altered)"]


@pytest.mark.parametrize("kind", ["submission", "submissions"])
def test_swaks_submits_with_auth(world: MailWorld, postrail: PostrailProcess, kind: str) -> None:
    recipient = f"swaks-{kind}@receiver.test"
    swaks(
        *("--server", f"127.0.0.1:{postrail.port(kind)}", "--from", SENDER, "--to", recipient, "--helo", "swaks.test"),
        *("--auth", "PLAIN" if kind == "submission" else "LOGIN", "--auth-user", USER, "--auth-password", PASSWORD),
        "-tls" if kind == "submission" else "-tlsc",
    )
    (received,) = world.postfix.wait_for_mail(recipient)
    assert SIGNED in verify_with_mail_dkim(received, world.dns.host, world.dns.port)


def test_swaks_submits_from_a_trusted_network(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "swaks-trusted@receiver.test"
    server = f"127.0.0.1:{postrail.port('trusted')}"
    swaks("--server", server, "--from", SENDER, "--to", recipient, "--helo", "swaks.test", "--pipeline")
    (received,) = world.postfix.wait_for_mail(recipient)
    assert SIGNED in verify_with_mail_dkim(received, world.dns.host, world.dns.port)


def test_eight_bit_body_arrives_unchanged_and_signed(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "eightbit@receiver.test"
    body = "Grüße aus Köln\r\n".encode() * 3
    extra = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    with submitting(postrail, USER, PASSWORD) as client:
        send(
            client,
            SENDER,
            [recipient],
            message(SENDER, recipient, body=body, extra=extra),
            mail_options=["BODY=8BITMIME"],
        )
    (received,) = world.postfix.wait_for_mail(recipient)
    assert body_of(received) == body
    assert SIGNED in verify_with_mail_dkim(received, world.dns.host, world.dns.port)


def test_control_fields_and_bcc_do_not_leave(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "control@receiver.test"
    extra = "Bcc: secret@receiver.test\r\nX-Postrail-Stream: marketing\r\nX-Postrail-Tag: spring\r\n"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, [recipient], message(SENDER, recipient, extra=extra))
    (received,) = world.postfix.wait_for_mail(recipient)
    header = header_of(received)
    assert "Bcc" not in header
    assert not [name for name in header if name.lower().startswith("x-postrail")]
    event = postrail.wait_for_event(queue_id, "delivered")
    assert (event["stream"], event["tag"]) == ("marketing", "spring")


def test_message_for_many_domains_reaches_each_recipient_once(world: MailWorld, postrail: PostrailProcess) -> None:
    at_postfix = [f"many{number}@receiver.test" for number in range(7)] + ["many@implicit.test"]
    at_sink = [f"many{number}@sink.test" for number in range(5)]
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, SENDER, [*at_postfix, *at_sink], message(SENDER, "everybody@receiver.test"))
    for recipient in at_postfix:
        assert len(world.postfix.wait_for_mail(recipient)) == 1
    for recipient in at_sink:
        (transaction,) = world.sink.wait_for_mail(recipient)
        assert body_of(transaction.message) == BODY


def test_internationalised_domain_is_looked_up_by_its_a_label(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = f"leser@{IDNA_DOMAIN}"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(
            client, SENDER, [recipient], message(SENDER, recipient), mail_options=["SMTPUTF8", "BODY=8BITMIME"]
        )
        send(client, SENDER, ["leser@xn--bcher-kva.test"], message(SENDER, "leser@xn--bcher-kva.test"))
    event = postrail.wait_for_event(queue_id, "delivered", recipient)
    assert event["mx_host"] == "mx.receiver.test"
    world.postfix.wait_for_mail("leser@xn--bcher-kva.test")


def test_smtputf8_address_reaches_a_peer_that_takes_it(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "jürgen@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, SENDER, [recipient], message(SENDER, recipient), mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    (received,) = world.postfix.wait_for_mail(recipient)
    assert body_of(received) == BODY


def test_next_mx_host_is_tried_when_the_first_does_not_answer(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "fallback@second.test"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, [recipient], message(SENDER, recipient))
    world.postfix.wait_for_mail(recipient)
    event = postrail.wait_for_event(queue_id, "delivered")
    assert (event["mx_host"], event["attempt"]) == ("mx.receiver.test", 1)


def test_domain_without_mx_is_reached_by_its_address(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "somebody@implicit.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, SENDER, [recipient], message(SENDER, recipient))
    world.postfix.wait_for_mail(recipient)


def test_peer_without_tls_gets_the_mail_in_clear(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "clear@sink.test"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, [recipient], message(SENDER, recipient))
    (transaction,) = world.sink.wait_for_mail(recipient)
    assert transaction.client_address == SOURCE_ADDRESS
    assert body_of(transaction.message) == BODY
    event = postrail.wait_for_event(queue_id, "delivered")
    assert "tls" not in event


def test_greylisted_recipient_gets_exactly_one_copy(
    world: MailWorld, postrail: PostrailProcess, new_sender: Callable[[], str]
) -> None:
    sender, recipient = new_sender(), "greylisted@receiver.test"
    world.postfix.policy.answer(recipient, "450 4.7.1 Greylisted, come back", "DUNNO")
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, sender, [recipient], message(sender, recipient))
    world.postfix.wait_for_mail(recipient)
    event = postrail.wait_for_event(queue_id, "delivered")
    assert event["attempt"] == 2
    assert [attempt.answer for attempt in world.postfix.policy.attempts_for(recipient)] == [
        "450 4.7.1 Greylisted, come back",
        "DUNNO",
    ]
    (deferred,) = [one for one in postrail.events(queue_id) if one["type"] == "deferred"]
    assert deferred["reply"].startswith("450 4.7.1")
    assert world.postfix.mail_for(recipient) == world.postfix.mail_for(recipient)[:1]


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["starttls", "tls"])
def test_every_handshake_succeeds_however_early_the_client_speaks(
    postrail: PostrailProcess, *, implicit_tls: bool
) -> None:
    for _ in range(20):
        with submitting(postrail, USER, PASSWORD, implicit_tls=implicit_tls) as client:
            assert client.noop()[0] == 250
