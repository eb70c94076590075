"""Routing with a real log and a real DNS server: from signed and due to the senders' topics, and back to the sender."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import dns.message
import dns.rrset
import pytest

from postrail.core.identity import delivery_id
from postrail.core.records import EventType, Recipient, Route, RouteKind
from postrail.core.topics import DEAD_LETTERS
from postrail.routing.service import RoutingService
from postrail.wire import codec
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text
from tests.support.stage_setting import BODY, Setting, delivery, message, message_id, setting

URGENT = "outbound.default.default.urgent"
ZONES = {
    "rcpt.test": zone_text("rcpt.test", "@ IN MX 10 mx\nmx IN A 127.0.0.5\nother IN MX 10 mx\nempty IN TXT no-mail\n"),
    "null.test": zone_text("null.test", "@ IN MX 0 .\n"),
    "broken.test": BROKEN,
}


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


@pytest.fixture
async def stage(tmp_path: Path, server: DnsServer) -> AsyncIterator[Setting]:
    routing = {"dns": {"nameservers": [server.nameserver], "timeout_seconds": 1}}
    async with setting(tmp_path, routing=routing) as made:
        service = RoutingService(made.context)
        await service.start()
        yield made
        assert service.problem() is None
        await service.drain()


async def test_signed_message_goes_to_the_sender_of_its_site(stage: Setting) -> None:
    await stage.put("signed.urgent", message("user@rcpt.test"))
    (record,) = await stage.taken(URGENT, 1)
    outbound = codec.decode_delivery(record.value)
    assert record.key == b"127.0.0.2|mx.rcpt.test"
    assert record.body is not None
    assert await record.body.load() == BODY
    assert outbound.route == Route(RouteKind.MX, "rcpt.test", 25, "mx.rcpt.test", "default", "default", "127.0.0.2")
    assert outbound.attempts == 0
    assert outbound.delivery_id == delivery_id(message_id(), [Recipient("user@rcpt.test")], 1)
    (event,) = await stage.events(1)
    assert (event.type, event.recipients, event.site) == (EventType.ROUTED, ("user@rcpt.test",), "mx.rcpt.test")
    assert (event.delivery_id, event.attempt) == (outbound.delivery_id, 1)


async def test_recipients_at_one_site_share_a_delivery(stage: Setting) -> None:
    await stage.put("signed.bulk", message("1@rcpt.test", "2@other.rcpt.test", "3@RCPT.test"))
    (outbound,) = await stage.deliveries(URGENT, 1)
    assert [recipient.address for recipient in outbound.envelope.recipients] == [
        "1@rcpt.test",
        "2@other.rcpt.test",
        "3@RCPT.test",
    ]


@pytest.mark.parametrize(
    ("address", "code", "enhanced"),
    [
        ("user@null.test", 556, "5.1.10"),
        ("user@absent.rcpt.test", 550, "5.1.2"),
        ("user@empty.rcpt.test", 550, "5.4.4"),
    ],
)
async def test_domain_that_takes_no_mail_is_returned_at_once(
    stage: Setting, address: str, code: int, enhanced: str
) -> None:
    await stage.put("signed.urgent", message(address))
    (record,) = await stage.taken("accepted.urgent", 1)
    notice = codec.decode_message(record.value)
    assert notice.envelope.reverse_path == ""
    assert [recipient.address for recipient in notice.envelope.recipients] == ["sender@sender.test"]
    assert record.body is not None
    assert f"Status: {enhanced}".encode() in await record.body.load()
    failed = (await stage.events(1))[0]
    assert failed.type is EventType.FAILED
    assert failed.reply is not None
    assert (failed.reply.code, failed.reply.enhanced) == (code, enhanced)
    await stage.nothing_in(URGENT)


@pytest.mark.parametrize("address", ["user@broken.test", "user@refused.example"])
async def test_failing_dns_defers(stage: Setting, address: str) -> None:
    await stage.put("signed.urgent", message(address))
    (record,) = await stage.taken("deferred.300s", 1)
    waiting = codec.decode_deferred(record.value)
    assert waiting.delivery.attempts == 1
    assert "DNS look-up" in waiting.reason
    (event,) = await stage.events(1)
    assert event.type is EventType.DEFERRED
    assert event.reply is not None
    assert (event.reply.code, event.reply.enhanced) == (451, "4.4.3")
    await stage.nothing_in(URGENT, "accepted.urgent")


async def test_each_recipient_of_a_message_has_its_own_fate(stage: Setting) -> None:
    await stage.put("signed.urgent", message("1@null.test", "2@rcpt.test", "3@broken.test"))
    (outbound,) = await stage.deliveries(URGENT, 1)
    (record,) = await stage.taken("deferred.300s", 1)
    await stage.taken("accepted.urgent", 1)
    assert [recipient.address for recipient in outbound.envelope.recipients] == ["2@rcpt.test"]
    waiting = codec.decode_deferred(record.value).delivery.envelope.recipients
    assert [recipient.address for recipient in waiting] == ["3@broken.test"]


async def test_due_delivery_is_routed_anew_and_keeps_its_attempts(stage: Setting) -> None:
    old = Route(RouteKind.MX, "rcpt.test", 25, "mx.of-before.test", "default", "default", "127.0.0.9")
    tried = replace(delivery("user@rcpt.test", attempts=3), route=old, delay_notified=True)
    await stage.put("due.urgent", codec.encode_delivery(tried))
    (outbound,) = await stage.deliveries(URGENT, 1)
    assert (outbound.attempts, outbound.delivery_id, outbound.delay_notified) == (3, tried.delivery_id, True)
    assert outbound.route is not None
    assert outbound.route.site == "mx.rcpt.test"
    (event,) = await stage.events(1)
    assert (event.type, event.attempt, event.site) == (EventType.ROUTED, 4, "mx.rcpt.test")


async def test_due_delivery_on_its_old_route_makes_no_event(stage: Setting) -> None:
    await stage.put("due.urgent", codec.encode_delivery(delivery("user@rcpt.test")))
    (first,) = await stage.deliveries(URGENT, 1)
    await stage.put("due.urgent", codec.encode_delivery(first))
    await stage.deliveries(URGENT, 2)
    assert len(await stage.events(1)) == 1


async def test_domain_that_disappeared_ends_the_retries(stage: Setting) -> None:
    await stage.put("due.urgent", codec.encode_delivery(delivery("user@absent.rcpt.test", attempts=2)))
    failed = (await stage.events(1))[0]
    assert (failed.type, failed.attempt) == (EventType.FAILED, 3)
    await stage.taken("accepted.urgent", 1)


@pytest.mark.parametrize("topic", ["signed.urgent", "due.urgent"])
async def test_expired_mail_is_returned_and_not_sent(stage: Setting, topic: str) -> None:
    expired: dict[str, Any] = {"received_at": 1_000.0, "expires_at": 2_000.0}
    value = (
        message("user@rcpt.test", **expired)
        if topic == "signed.urgent"
        else codec.encode_delivery(delivery("user@rcpt.test", **expired))
    )
    await stage.put(topic, value)
    (record,) = await stage.taken("accepted.urgent", 1)
    assert record.body is not None
    assert b"Status: 5.4.7" in await record.body.load()
    assert (await stage.events(1))[0].type is EventType.EXPIRED
    await stage.nothing_in(URGENT)


async def test_returned_mail_holds_the_body_where_the_sender_wants_it(stage: Setting) -> None:
    await stage.put("signed.urgent", message("user@null.test", ret="FULL"))
    (record,) = await stage.taken("accepted.urgent", 1)
    assert record.body is not None
    assert BODY.strip() in await record.body.load()


async def test_record_that_is_no_message_becomes_a_dead_letter(stage: Setting) -> None:
    await stage.put("signed.urgent", b"\xff\xff nonsense")
    await stage.put("signed.urgent", message("user@rcpt.test"))
    await stage.deliveries(URGENT, 1)
    (letter,) = await stage.taken(DEAD_LETTERS, 1)
    assert codec.decode_dead_letter(letter.value).value == b"\xff\xff nonsense"


async def test_mixed_pool_uses_the_ip_version_of_the_hosts(tmp_path: Path, server: DnsServer) -> None:
    sources = [{"address": "127.0.0.2", "ehlo": "four.sender.test"}, {"address": "::1", "ehlo": "six.sender.test"}]
    routing = {"dns": {"nameservers": [server.nameserver]}}
    async with setting(tmp_path, routing=routing, pools={"default": {"sources": sources}}) as stage:
        service = RoutingService(stage.context)
        await service.start()
        for number in range(10):
            await stage.put("signed.urgent", message("user@rcpt.test", number=number))
        routes = [item.route for item in await stage.deliveries(URGENT, 10)]
        assert {route.source_address for route in routes if route is not None} == {"127.0.0.2"}
        await service.drain()


class PartlySilent(asyncio.DatagramProtocol):
    """A name server that never answers about slow.test and at once about all else."""

    def __init__(self) -> None:
        self.silent_questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        if "slow" in str(query.question[0].name):
            self.silent_questions += 1
            return
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "MX", "10 mx.test."))
        self.transport.sendto(response.to_wire(), addr)


async def test_one_slow_look_up_delays_nobody_else(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(PartlySilent, local_addr=("127.0.0.1", 0))
    nameserver = f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    dns_section = {"nameservers": [nameserver], "timeout_seconds": 2, "tries": 1}
    async with setting(tmp_path, routing={"dns": dns_section}) as stage:
        service = RoutingService(stage.context)
        await service.start()
        await stage.put("signed.urgent", message("user@slow.test"))
        for number in range(1, 21):
            await stage.put("signed.urgent", message(f"user@fast{number}.test", number=number))
        assert len(await stage.deliveries(URGENT, 20)) == 20
        assert server.silent_questions == 1
        await stage.nothing_in("deferred.300s")
        (record,) = await stage.taken("deferred.300s", 1)
        assert "did not answer within 2 s" in codec.decode_deferred(record.value).reason
        await service.drain()
    transport.close()
