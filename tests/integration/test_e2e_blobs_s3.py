"""Large messages go through S3 storage; while it is away none is lost, small ones pass, and submission says to come again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mail_world import LATE_ADDRESS, PASSWORD, RSA_SELECTOR, SENDER_DOMAIN, USER, MailWorld
from tests.support.messages import body_of, message
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.processes import daemon_folder, wait_for
from tests.support.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, s3_server
from tests.support.smtp_tools import SignatureResult, SmtpSink, verify_with_mail_dkim

SENDER = f"app@{SENDER_DOMAIN}"
SIGNED = SignatureResult(SENDER_DOMAIN, RSA_SELECTOR, "rsa-sha256", "pass")
BODY = b"".join(b"line %d of a large body\r\n" % number for number in range(300_000))


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path) as server:
        yield server


@pytest.fixture
def on_s3(own_postrail: PostrailProcess, s3: S3Server) -> PostrailProcess:
    secret = own_postrail.config_file.parent / "s3-secret"
    secret.write_text(SECRET_KEY)
    own_postrail.config["blobs"] = {
        "store": "s3",
        "s3": {
            "bucket": BUCKET,
            "endpoint": s3.endpoint,
            "allow_http": True,
            "access_key_id": ACCESS_KEY,
            "secret_access_key_file": secret.name,
            "request_timeout_seconds": 1,
            "write_timeout_seconds": 2,
        },
    }
    own_postrail.start()
    return own_postrail


def test_a_large_message_arrives_signed_and_unchanged(world: MailWorld, on_s3: PostrailProcess, s3: S3Server) -> None:
    recipient = "through-s3@sink.test"
    with submitting(on_s3, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, [recipient], message(SENDER, recipient, body=BODY))
    on_s3.wait_for_event(queue_id, "delivered")
    (received,) = world.sink.received_for(recipient)
    assert body_of(received.message) == BODY
    assert SIGNED in verify_with_mail_dkim(received.message, world.dns.host, world.dns.port)
    (stored,) = s3.objects().values()
    assert stored.read_bytes() == BODY
    on_s3.stop()


def test_what_was_accepted_survives_an_outage_of_the_storage(
    world: MailWorld, on_s3: PostrailProcess, s3: S3Server
) -> None:
    before, small, after = "before@late.test", "small@sink.test", "after@sink.test"
    with submitting(on_s3, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, [before], message(SENDER, before, body=BODY))
        on_s3.wait_for_event(queue_id, "deferred")
        s3.kill()
        with pytest.raises(AssertionError, match=r"451, b'4\.3\.0"):
            send(client, SENDER, ["refused@sink.test"], message(SENDER, "refused@sink.test", body=BODY))
        send(client, SENDER, [small], message(SENDER, small))
        world.sink.wait_for_mail(small)
        with daemon_folder("late") as folder:
            sink = SmtpSink(folder, LATE_ADDRESS, world.mx_port)
            sink.start()
            try:
                wait_for("an attempt without a body", lambda: _logged(on_s3, "body-unreadable"))
                assert sink.received() == []
                s3.start()
                on_s3.wait_for_event(queue_id, "delivered")
                (received,) = sink.received_for(before)
            finally:
                sink.stop()
        assert body_of(received.message) == BODY
        send(client, SENDER, [after], message(SENDER, after, body=BODY))
    assert len(world.sink.wait_for_mail(after)) == 1
    on_s3.wait_until_empty()
    on_s3.stop()


def _logged(postrail: PostrailProcess, event: str) -> bool:
    return any(line["event"] == event for line in postrail.log_lines())
