"""What was accepted is still there after a stop and after a crash, and is delivered once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.support.mail_world import LATE_ADDRESS, PASSWORD, SENDER_DOMAIN, USER, MailWorld
from tests.support.messages import BODY, body_of, message
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.processes import daemon_folder, wait_for
from tests.support.smtp_tools import SmtpSink

SENDER = f"app@{SENDER_DOMAIN}"
COUNT = 20


@contextlib.contextmanager
def late_sink(world: MailWorld) -> Iterator[SmtpSink]:
    """The receiver of late.test, which is down before."""
    with daemon_folder("late") as folder:
        sink = SmtpSink(folder, LATE_ADDRESS, world.mx_port)
        sink.start()
        try:
            yield sink
        finally:
            sink.stop()


def submit_many(postrail: PostrailProcess, prefix: str, *, connections: int = 1) -> list[str]:
    recipients = [f"{prefix}{number}@late.test" for number in range(COUNT)]
    for start in range(connections):
        with submitting(postrail, USER, PASSWORD) as client:
            for recipient in recipients[start::connections]:
                send(client, SENDER, [recipient], message(SENDER, recipient))
    return recipients


def waiting_recipients(postrail: PostrailProcess) -> list[str]:
    return sorted(recipient for row in postrail.queue() for recipient in row["recipients"])


def assert_each_arrived_once(sink: SmtpSink, recipients: list[str]) -> None:
    received = sink.received()
    assert sorted(one.recipients[0] for one in received) == sorted(recipients)
    assert {body_of(one.message) for one in received} == {BODY}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_accepted_mail_survives_the_end_of_the_process(
    world: MailWorld, own_postrail: PostrailProcess, end: Literal["stop", "kill"]
) -> None:
    own_postrail.start()
    recipients = submit_many(own_postrail, "survives")
    own_postrail.stop() if end == "stop" else own_postrail.kill()
    waiting = waiting_recipients(own_postrail)
    if world.kafka is not None and end == "kill":  # what was being passed on may stand at both ends; it is sent once
        waiting = sorted(set(waiting))
    assert waiting == sorted(recipients)
    own_postrail.start()
    with late_sink(world) as sink:
        own_postrail.wait_until_empty()
        own_postrail.stop()
        assert_each_arrived_once(sink, recipients)


@pytest.mark.embedded
def test_one_worker_delivers_what_several_have_left(world: MailWorld, own_postrail: PostrailProcess) -> None:
    own_postrail.workers = 3
    own_postrail.config["log"]["min_free_bytes"] = "1MiB"
    own_postrail.start()
    recipients = submit_many(own_postrail, "workers", connections=8)
    own_postrail.stop()
    assert waiting_recipients(own_postrail) == sorted(recipients)
    own_postrail.workers = 1
    own_postrail.start()
    with late_sink(world) as sink:
        own_postrail.wait_until_empty()
        own_postrail.stop()
        assert_each_arrived_once(sink, recipients)


@pytest.mark.embedded
def test_worker_that_dies_is_started_again_and_its_mail_delivered(
    world: MailWorld, own_postrail: PostrailProcess
) -> None:
    own_postrail.workers = 2
    own_postrail.start()
    recipients = submit_many(own_postrail, "crashed", connections=8)
    own_postrail.kill_worker(0)
    wait_for("the end of the worker in the log", lambda: _logged(own_postrail, "worker_ended"))
    wait_for("both workers to be ready", own_postrail.ready, 30)
    with late_sink(world) as sink:
        own_postrail.wait_until_empty()
        own_postrail.stop()
        assert_each_arrived_once(sink, recipients)


def _logged(postrail: PostrailProcess, event: str) -> bool:
    return any(line.get("event") == event for line in postrail.log_lines())
