"""What submission accepts, and what of it is in the log when it has said 250."""

import hashlib
import smtplib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from postrail.core.records import EventType, Lane, Notify
from tests.support.ingress import (
    PASSWORD,
    SUBMISSION,
    SUBMISSIONS,
    TRUSTED,
    Client,
    Ingress,
    client_context,
    connect,
    in_thread,
    running,
    settings,
)


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Ingress]:
    async with running(tmp_path, settings(tmp_path)) as started:
        yield started


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "a@example.com", "To": "b@example.org", "Subject": "Hello", **headers}.items():
        message[name.replace("_", "-")] = value
    message.set_content("A line.\n.\n..dots\n")
    return message


async def test_a_message_of_a_trusted_network_is_stored_with_its_event(ingress: Ingress) -> None:
    def submit() -> str:
        with connect(ingress) as client:
            assert client.say("MAIL FROM:<a@example.com>") == "250 2.1.0 Ok"
            assert client.say("RCPT TO:<b@example.org>") == "250 2.1.5 Ok"
            assert client.say("DATA").startswith("354")
            return client.content(b"From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n..dot\r\n.\r\n")

    reply = await in_thread(submit)
    (stored,) = await ingress.stored()
    envelope = stored.message.envelope
    assert reply == f"250 2.0.0 Ok: queued as {envelope.message_id}"
    assert stored.body == b"body\r\n.dot\r\n"
    assert stored.topic == "accepted.urgent"
    assert (envelope.reverse_path, envelope.submitter, envelope.stream) == ("a@example.com", "relay", "transactional")
    assert [recipient.address for recipient in envelope.recipients] == ["b@example.org"]
    assert envelope.lane is Lane.URGENT
    assert not envelope.eight_bit
    assert envelope.size_bytes == len(stored.message.header_block) + 2 + len(stored.body)
    assert envelope.header_message_id == f"{envelope.message_id}@mail.example.com"
    (event,) = await ingress.events()
    assert event.type is EventType.ACCEPTED
    assert (event.message_id, event.recipients) == (envelope.message_id, ("b@example.org",))


@pytest.mark.parametrize("listener", [SUBMISSION, SUBMISSIONS])
async def test_a_submitter_authenticates_and_submits(ingress: Ingress, listener: int) -> None:
    def submit() -> None:
        client: smtplib.SMTP
        if listener == SUBMISSION:
            client = smtplib.SMTP("127.0.0.1", ingress.port(listener), local_hostname="c.example.net", timeout=10)
            client.starttls(context=client_context())
        else:
            client = smtplib.SMTP_SSL(
                "127.0.0.1", ingress.port(listener), "c.example.net", timeout=10, context=client_context()
            )
        with client:
            client.login("shop", PASSWORD)
            client.send_message(mail(Bcc="hidden@example.org"))

    await in_thread(submit)
    (stored,) = await ingress.stored()
    block = stored.message.header_block
    assert block.startswith(b"Received: from c.example.net ([127.0.0.1])\r\n\tby mail.example.com with ESMTPSA (TLSv1")
    assert stored.message.envelope.submitter == "shop"
    assert b"hidden" not in block
    assert stored.body == b"A line.\r\n.\r\n..dots\r\n"


async def test_both_mechanisms_and_both_ways_of_plain(ingress: Ingress) -> None:
    def submit(mechanism: str, initial: bool) -> str:
        client = connect(ingress, SUBMISSION, tls=True)
        with client:
            client.user, client.password = "shop", PASSWORD
            code, _ = client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"), initial_response_ok=initial)
            return f"{code} {client.say('MAIL FROM:<a@example.com>')}"

    for mechanism in ("PLAIN", "LOGIN"):
        for initial in (True, False):
            assert await in_thread(submit, mechanism, initial) == "235 250 2.1.0 Ok"


async def test_extensions_are_announced_where_they_can_be_used(ingress: Ingress) -> None:
    everywhere = {"pipelining", "size", "8bitmime", "smtputf8", "chunking", "dsn", "enhancedstatuscodes"}

    def features(listener: int, tls: bool) -> tuple[set[str], str]:
        with connect(ingress, listener, tls=tls) as client:
            return set(client.esmtp_features), client.esmtp_features["size"]

    assert await in_thread(features, SUBMISSION, False) == (everywhere | {"starttls"}, str(25 << 20))
    assert (await in_thread(features, SUBMISSION, True))[0] == everywhere | {"auth"}
    assert (await in_thread(features, TRUSTED, False))[0] == everywhere | {"starttls"}


async def test_pipelined_commands_content_and_the_next_transaction_are_answered_in_order(ingress: Ingress) -> None:
    def submit() -> list[str]:
        with connect(ingress) as client:
            assert client.sock is not None
            one = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<bad>\r\nDATA\r\n"
            one += b"From: a@example.com\r\n\r\nx\r\n.\r\n"
            client.sock.sendall(one + one + b"NOOP\r\n")
            return [str(client.getreply()[0]) for _ in range(11)]

    assert await in_thread(submit) == ["250", "250", "553", "354", "250"] * 2 + ["250"]
    assert len(await ingress.stored()) == 2


async def test_chunks_make_one_message(ingress: Ingress) -> None:
    def submit() -> list[str]:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=100")
            client.say("RCPT TO:<b@example.org>")
            assert client.sock is not None
            client.sock.sendall(
                b"BDAT 21\r\nFrom: a@example.com\r\n" + b"BDAT 9\r\n\r\n.\r\n\xc3\xa9\r\n" + b"BDAT 0 LAST\r\nNOOP\r\n"
            )
            return [f"{code} {text.decode()}" for code, text in (client.getreply() for _ in range(4))]

    replies = await in_thread(submit)
    (stored,) = await ingress.stored()
    assert replies[:2] == ["250 2.0.0 21 octets received", "250 2.0.0 9 octets received"]
    assert replies[2] == f"250 2.0.0 Ok: queued as {stored.message.envelope.message_id}"
    assert replies[3] == "250 2.0.0 Ok"
    assert stored.body == b".\r\n\xc3\xa9\r\n"
    assert stored.message.envelope.eight_bit


async def test_notification_wishes_are_kept(ingress: Ingress) -> None:
    def submit() -> None:
        with connect(ingress) as client:
            assert client.say("MAIL FROM:<a@example.com> RET=HDRS ENVID=Q+2B1 AUTH=<>").startswith("250")
            assert (
                client.say("RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bx@example.org")
                == "250 2.1.5 Ok"
            )
            assert client.say("RCPT TO:<c@example.org> NOTIFY=NEVER") == "250 2.1.5 Ok"
            client.say("DATA")
            client.content(b"From: a@example.com\r\n\r\n.\r\n")

    await in_thread(submit)
    (stored,) = await ingress.stored()
    envelope = stored.message.envelope
    assert (envelope.ret, envelope.envid) == ("HDRS", "Q+1")
    first, second = envelope.recipients
    assert (first.notify, first.orcpt) == (Notify.SUCCESS | Notify.DELAY, "rfc822;B+x@example.org")
    assert second.notify is Notify.NEVER


async def test_internationalised_addresses_are_kept(ingress: Ingress) -> None:
    def submit() -> None:
        with connect(ingress) as client:
            assert client.sock is not None
            client.sock.sendall("MAIL FROM:<ä@exämple.com> SMTPUTF8\r\nRCPT TO:<ö@example.org>\r\nDATA\r\n".encode())
            assert [client.getreply()[0] for _ in range(3)] == [250, 250, 354]
            assert client.content("From: ä@exämple.com\r\n\r\n.\r\n".encode()).startswith("250")

    await in_thread(submit)
    (stored,) = await ingress.stored()
    assert stored.message.envelope.smtputf8
    assert stored.message.envelope.reverse_path == "ä@exämple.com"
    assert b"with UTF8SMTP\r\n" in stored.message.header_block


async def test_control_fields_choose_and_are_removed(ingress: Ingress) -> None:
    def submit() -> None:
        with connect(ingress, SUBMISSION, login=True) as client:
            client.send_message(
                mail(X_Postrail_Stream="marketing", X_Postrail_Tag="spring", X_Postrail_Metadata_Order="17")
            )

    await in_thread(submit)
    (stored,) = await ingress.stored()
    envelope = stored.message.envelope
    assert (envelope.stream, envelope.tag, envelope.metadata) == ("marketing", "spring", (("order", "17"),))
    assert stored.topic == "accepted.bulk"
    assert b"postrail-" not in stored.message.header_block.lower()


async def test_a_large_body_goes_to_the_blob_store_unchanged(ingress: Ingress) -> None:
    body = b"".join(b"%07d %s\r\n" % (number, b"x" * 60) for number in range(60_000))

    def submit() -> str:
        with connect(ingress) as client:
            client.say("MAIL FROM:<a@example.com>")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            return client.content(b"From: a@example.com\r\n\r\n" + body + b".\r\n")

    assert (await in_thread(submit)).startswith("250 2.0.0 Ok: queued")
    (stored,) = await ingress.stored()
    blob = stored.message.blob
    assert blob is not None
    assert (blob.size_bytes, blob.sha256) == (len(body), hashlib.sha256(body).digest())
    assert stored.body == body
    assert len(ingress.blob_files()) == 1


async def test_a_client_that_leaves_within_content_leaves_nothing(ingress: Ingress) -> None:
    def leave() -> None:
        client: Client = connect(ingress)
        client.say("MAIL FROM:<a@example.com>")
        client.say("RCPT TO:<b@example.org>")
        client.say("DATA")
        assert client.sock is not None
        client.sock.sendall(b"From: a@example.com\r\n\r\n" + b"x" * 70 * 10_000 + b"\r\n")
        client.close()

    await in_thread(leave)
    await ingress.service.drain()
    assert await ingress.stored() == []
    assert ingress.blob_files() == []


async def test_the_same_recipient_twice_gets_one_copy(ingress: Ingress) -> None:
    def submit() -> None:
        with connect(ingress) as client:
            client.sendmail("a@example.com", ["b@example.org", "b@EXAMPLE.org"], "From: a@example.com\r\n\r\n")

    await in_thread(submit)
    (stored,) = await ingress.stored()
    assert [recipient.address for recipient in stored.message.envelope.recipients] == ["b@example.org"]
