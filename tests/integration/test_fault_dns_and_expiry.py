"""Faults 16 and 20: what DNS says, and what is not delivered in its time; the whole system, the ledger.

The resolver's own view is in test_dns, routing's in test_routing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from postrail.core.records import EventType
from postrail.demo.dns_server import Fault
from postrail.demo.receivers import Behaviour, Session
from tests.support.fault_configuration import SENDER
from tests.support.fault_world import FaultWorld, fault_world
from tests.support.messages import read_report

pytestmark = pytest.mark.asyncio(loop_scope="module")
BRIEF = "X-Postrail-Stream: brief\r\n"
"""Two seconds to live."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[FaultWorld]:
    async with fault_world() as running:
        yield running


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("of_host", [False, True], ids=["MX", "address"])
async def test_dns_that_fails_defers_and_the_mail_arrives_when_it_is_back(
    world: FaultWorld, fault: Fault, of_host: bool
) -> None:
    place = await world.place()
    broken = f"mx.{place.domain}" if of_host else place.domain
    world.system.dns.fail(broken, fault)
    sent = await world.submit(place("user"))
    deferred = await world.event(sent, EventType.DEFERRED)
    assert deferred.reply is not None
    assert deferred.reply.code == 451
    assert deferred.reply.enhanced == ("4.4.4" if of_host else "4.4.3")
    assert broken in str(deferred.reply)
    assert place.receiver is not None
    assert place.receiver.connections == 0
    world.system.dns.fail(broken, None)
    assert await world.fates(sent) == {place("user"): EventType.DELIVERED}
    assert world.ledger.copies(sent.ledger_id, place("user")) == 1
    assert not world.reports_about(sent)


async def failed_at_once(world: FaultWorld, recipient: str, status: str) -> None:
    sent = await world.submit(recipient)
    assert await world.fates(sent) == {recipient: EventType.FAILED}
    report = read_report((await world.report(sent)).content)
    (about,) = report.recipients
    assert (about["Final-Recipient"], about["Action"], about["Status"]) == (f"rfc822;{recipient}", "failed", status)
    assert not [event for event in await world.events(sent.message_id) if event.type is EventType.DEFERRED]
    assert len(world.reports_about(sent)) == 1


async def test_a_domain_that_does_not_exist_is_reported_as_5_1_2(world: FaultWorld) -> None:
    await failed_at_once(world, "user@nowhere.example", "5.1.2")


async def test_a_domain_with_a_null_mx_is_reported_as_5_1_10(world: FaultWorld) -> None:
    world.system.dns.add("nullmx.example", "MX", "0 .")
    world.system.dns.add("nullmx.example", "A", "127.0.45.251")  # must not be tried (RFC 7505 §3)
    await failed_at_once(world, "user@nullmx.example", "5.1.10")


class Never(Behaviour):
    """Takes nothing."""

    def rcpt(self, session: Session, address: str) -> str | None:
        return "450 4.2.1 Not today"


async def test_what_is_not_delivered_in_time_is_returned_once_and_never_to_a_null_sender(world: FaultWorld) -> None:
    place = await world.place(Never())
    told = await world.submit(place("told"), extra=BRIEF)
    asked = await world.submit(place("asked") + " NOTIFY=FAILURE,DELAY", extra=BRIEF)
    silent = await world.submit(place("silent"), sender="", extra=BRIEF, books=False)
    never = await world.submit(place("never") + " NOTIFY=NEVER", extra=BRIEF, books=False)
    for sent, name in ((told, "told"), (asked, "asked"), (silent, "silent"), (never, "never")):
        assert await world.fates(sent) == {place(name): EventType.EXPIRED}
        (expired,) = [event for event in await world.events(sent.message_id) if event.type is EventType.EXPIRED]
        assert 1.9 <= expired.queued_seconds < 15
    for sent in (told, asked):
        received = await world.report(sent)
        assert received.reverse_path == ""
        assert received.recipients == (SENDER,)
        report = read_report(received.content)
        (about,) = report.recipients
        assert (about["Action"], about["Status"]) == ("failed", "5.4.7")
        assert "Not today" in report.message.as_string(), "the last reply is shown"
    await world.until_idle()
    for sent in (told, asked):
        assert len(world.reports_about(sent)) == 1
    for sent in (silent, never):
        assert not world.reports_about(sent)
        assert not [event for event in await world.events(sent.message_id) if event.type is EventType.NOTIFIED]


async def test_a_notification_that_cannot_be_delivered_is_not_answered(world: FaultWorld) -> None:
    home = next(receiver for receiver in world.receivers if receiver.name.startswith("home."))
    usual, home.behaviour = home.behaviour, Refusing()
    sent = await world.submit("user@nowhere.example", books=False)
    assert await world.fates(sent) == {"user@nowhere.example": EventType.FAILED}
    notified = await world.event(sent, EventType.NOTIFIED)
    await world.until(lambda: home.refusals["550"])
    await world.until_idle()
    home.behaviour = usual
    assert notified.type is EventType.NOTIFIED
    assert home.refusals["550"] == 1, "the notification was tried once, and nothing was sent about it"


class Refusing(Behaviour):
    """Knows nobody."""

    def rcpt(self, session: Session, address: str) -> str | None:
        return "550 5.1.1 No such user"
