"""Mail that does not go to the MX of its domain: smarthosts by domain, a smarthost for everything, a fallback relay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tests.support.mail_world import PASSWORD, RELAY_ADDRESS, SENDER_DOMAIN, USER, MailWorld
from tests.support.messages import BODY, body_of, message
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.processes import daemon_folder, free_port
from tests.support.smtp_tools import SmtpSink

SENDER = f"app@{SENDER_DOMAIN}"


@contextlib.contextmanager
def relay() -> Iterator[SmtpSink]:
    with daemon_folder("relay") as folder:
        sink = SmtpSink(folder, RELAY_ADDRESS, free_port())
        sink.start()
        try:
            yield sink
        finally:
            sink.stop()


def submit(postrail: PostrailProcess, recipient: str) -> str:
    with submitting(postrail, USER, PASSWORD) as client:
        return send(client, SENDER, [recipient], message(SENDER, recipient))


def test_smarthost_of_a_domain_gets_its_mail_and_no_other(world: MailWorld, own_postrail: PostrailProcess) -> None:
    with relay() as sink:
        smarthosts = {"no-dns.test": {"host": sink.address, "port": sink.port}}
        own_postrail.config["routing"]["smarthosts"] = smarthosts
        own_postrail.start()
        submit(own_postrail, "a@no-dns.test")
        submit(own_postrail, "b@sink.test")
        (relayed,) = sink.wait_for_mail("a@no-dns.test")
        assert body_of(relayed.message) == BODY
        world.sink.wait_for_mail("b@sink.test")
        assert sink.count() == 1
        own_postrail.stop()


def test_smarthost_for_everything_leaves_local_domains_alone(
    world: MailWorld, own_postrail: PostrailProcess, new_sender: Callable[[], str]
) -> None:
    with relay() as sink:
        own_postrail.config["routing"]["smarthosts"] = {"*": {"host": sink.address, "port": sink.port}}
        own_postrail.start()
        local = new_sender()
        submit(own_postrail, "a@nullmx.test")
        submit(own_postrail, local)
        sink.wait_for_mail("a@nullmx.test")
        world.dovecot.wait_for_mail(local.partition("@")[0])
        assert sink.count() == 1
        own_postrail.stop()


def test_fallback_relay_gets_what_no_mx_host_takes(world: MailWorld, own_postrail: PostrailProcess) -> None:
    with relay() as sink:
        own_postrail.config["routing"]["fallback_relay"] = {"host": sink.address, "port": sink.port}
        own_postrail.start()
        queue_id = submit(own_postrail, "a@down.test")
        submit(own_postrail, "direct@receiver.test")
        sink.wait_for_mail("a@down.test")
        world.postfix.wait_for_mail("direct@receiver.test")
        event = own_postrail.wait_for_event(queue_id, "delivered")
        assert event["mx_address"] == sink.address
        assert sink.count() == 1
        own_postrail.stop()
