"""Limits hold exactly, slow sites delay nobody, and a stopping sender loses and repeats nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from postrail.core.records import EventType, Lane
from postrail.core.topics import DEAD_LETTERS
from postrail.log.interface import Append
from postrail.log.sqlite import open_log
from tests.support.scripted_smtp import scripted
from tests.support.sending import BODY, a_delivery, of_type, sender_config, sending, until

TO = "user@example.com"
TWO_SITES = {"example.com": [(10, "mx.example.com")], "slow.example": [(10, "mx.slow.example")]}
TWO_ADDRESSES = {"mx.example.com": ["127.0.0.1"], "mx.slow.example": ["127.0.0.7"]}


async def test_no_more_connections_than_allowed(tmp_path: Path) -> None:
    config = sender_config(tmp_path, default_limits={"connections": 3, "messages_per_connection": 2})
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(30)))
        await sender.events(30)
        assert server.most_open == 3


async def test_two_senders_of_a_machine_share_the_connections(tmp_path: Path) -> None:
    config = sender_config(tmp_path, default_limits={"connections": 2, "messages_per_connection": 2})
    (tmp_path / "b").mkdir()
    async with scripted() as server:
        second_log = open_log(tmp_path / "b" / "log.sqlite", config.log)
        async with (
            sending(tmp_path, config, shares=2) as first,
            sending(tmp_path, config, shares=2, log=second_log) as second,
        ):
            for sender in (first, second):
                await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(10)))
            await first.events(10)
            await second.events(10)
        await second_log.close()
        assert server.most_open <= 2
        assert server.messages == 20


async def test_no_more_messages_a_second_than_allowed(tmp_path: Path) -> None:
    config = sender_config(tmp_path, default_limits={"messages_per_second": 20})
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(30)))
        start = time.monotonic()
        await sender.events(30)
        assert time.monotonic() - start > 0.5, "30 messages at 20 a second need more than half a second, burst included"


async def test_a_dead_site_is_parked_and_delays_nobody(tmp_path: Path) -> None:
    config = sender_config(tmp_path, max_in_memory=50, timeouts={"connect_seconds": 5})
    hole = socket.create_server(("127.0.0.7", 0), backlog=0)
    port = hole.getsockname()[1]
    async with (
        scripted(port=port) as server,
        sending(tmp_path, config, mx=TWO_SITES, addresses=TWO_ADDRESSES) as sender,
    ):
        dead = (
            a_delivery(port, f"u{n}@slow.example", next_hop="slow.example", site="mx.slow.example") for n in range(40)
        )
        await sender.put(*((delivery, BODY) for delivery in dead))
        await sender.put(*((a_delivery(port, f"u{number}@example.com"), BODY) for number in range(40)))
        await until(lambda: server.messages == 40, within_seconds=4)
    hole.close()


async def test_a_suspended_site_gets_nothing_and_delays_nobody(tmp_path: Path) -> None:
    config = sender_config(tmp_path, site_limits={"mx.slow.example": {"suspend": True}})
    async with scripted() as server, sending(tmp_path, config, mx=TWO_SITES, addresses=TWO_ADDRESSES) as sender:
        held = a_delivery(server.port, "u@slow.example", next_hop="slow.example", site="mx.slow.example")
        await sender.put((held, BODY), (a_delivery(server.port, TO), BODY))
        events = await sender.events(2)
        assert len(of_type(events, EventType.DELIVERED)) == 1
        [parked] = of_type(events, EventType.PARKED)
        assert parked.detail == "mail to mx.slow.example is suspended (limits)"
        [waiting] = await sender.deferrals()
        assert waiting.delivery.envelope.recipients[0].address == "u@slow.example"
        assert waiting.delivery.attempts == 0
        assert 0 < waiting.due_at - waiting.deferred_at <= 300
        assert server.messages == 1


async def test_an_unreachable_site_is_left_alone(tmp_path: Path) -> None:
    async with sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put(*((a_delivery(1, f"u{number}@example.com"), BODY) for number in range(10)))
        events = await sender.events(10)
        assert 1 <= len(of_type(events, EventType.DEFERRED)) <= 2
        assert len(of_type(events, EventType.PARKED)) >= 8
        deferred = of_type(events, EventType.DEFERRED)[0]
        assert deferred.reply is not None
        assert deferred.reply.enhanced == "4.4.1"
        assert "refused" in deferred.reply.text
        waiting = await sender.deferrals()
        assert len(waiting) == 10
        assert sorted(one.delivery.attempts for one in waiting)[:8] == [0] * 8, "parking is no attempt"
        assert await sender.committed_everything()


async def test_a_long_queue_for_an_unreachable_site_comes_back_one_by_one(tmp_path: Path) -> None:
    config = sender_config(tmp_path, default_limits={"messages_per_second": 2})
    shortest = config.delivery.retry.tiers_seconds[0]
    async with sending(tmp_path, config) as sender:
        await sender.put(*((a_delivery(1, f"u{number}@example.com"), BODY) for number in range(300)))
        parked = of_type(await sender.events(300), EventType.PARKED)
        assert len(parked) >= 298
        waits = [event.due_at - event.at for event in parked]
        assert min(waits) == pytest.approx(shortest)
        within_a_second = Counter(int(wait) for wait in waits if wait > shortest * 1.1)
        assert max(within_a_second.values()) <= 4, "the site's limit is 2 a second"
        assert shortest + 120 < max(waits) < shortest + 180


async def test_a_slow_sites_overflow_is_parked(tmp_path: Path) -> None:
    config = sender_config(tmp_path, max_site_queue=5, default_limits={"messages_per_second": 0.5})
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(3)))
        await until(lambda: server.messages == 2, within_seconds=6)
        await sender.put(*((a_delivery(server.port, f"v{number}@example.com"), BODY) for number in range(80)))
        events = await sender.events(30)
        assert of_type(events, EventType.PARKED)


async def test_a_fast_sites_burst_is_not_parked_because_its_first_session_was_slow(tmp_path: Path) -> None:
    config = sender_config(tmp_path, max_site_queue=100, max_in_memory=300, default_limits={"connections": 20})
    async with scripted() as server, sending(tmp_path, config) as sender:
        original = server._answer

        async def late(verb: str, writer: asyncio.StreamWriter) -> int:
            if verb == "banner":
                await asyncio.sleep(0.3)
            return await original(verb, writer)

        server._answer = late  # type: ignore[method-assign]
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(1000)))
        events = await sender.events(1000)
        assert len(of_type(events, EventType.DELIVERED)) == 1000


async def test_urgent_mail_overtakes_and_bulk_is_not_starved(tmp_path: Path) -> None:
    config = sender_config(tmp_path, default_limits={"connections": 1})
    async with scripted() as server, sending(tmp_path, config, start=False) as sender:
        bulk = [a_delivery(server.port, f"bulk{number}@example.com", lane=Lane.BULK) for number in range(20)]
        urgent = [a_delivery(server.port, f"urgent{number}@example.com") for number in range(20)]
        await sender.put(*((delivery, BODY) for delivery in bulk))
        await sender.put(*((delivery, BODY) for delivery in urgent))
        await sender.service.start()
        await sender.events(40)
        order = ["urgent" in taken.recipients[0] for taken in server.taken]
        assert sum(order[:20]) >= 12, "urgent first"
        assert not all(order[:12]), "bulk is not starved"


async def test_a_connection_takes_only_mail_of_its_hosts(tmp_path: Path) -> None:
    mx = {"one.example": [(10, "mx1.provider.example")], "two.example": [(10, "mx2.provider.example")]}
    addresses = {"mx1.provider.example": ["127.0.0.1"], "mx2.provider.example": ["127.0.0.2"]}
    async with (
        scripted() as first,
        scripted(address="127.0.0.2", port=first.port) as second,
        sending(tmp_path, sender_config(tmp_path), mx=mx, addresses=addresses) as sender,
    ):
        await sender.put(
            *(
                (a_delivery(first.port, f"u@{domain}", next_hop=domain, site="provider"), BODY)
                for domain in ("one.example", "two.example") * 10
            )
        )
        await sender.events(20)
        assert {taken.recipients[0] for taken in first.taken} == {"RCPT TO:<u@one.example>"}
        assert {taken.recipients[0] for taken in second.taken} == {"RCPT TO:<u@two.example>"}


async def test_mail_waits_when_its_source_address_is_missing(tmp_path: Path) -> None:
    name = "postrail_sender_source_mismatch_total"
    before = REGISTRY.get_sample_value(name) or 0.0
    config = sender_config(tmp_path, source="192.0.2.77")
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO, source="192.0.2.77"), BODY))
        (event,) = await sender.events(1)
        assert event.type is EventType.PARKED
        assert "192.0.2.77" in event.detail
        assert server.sessions == []
        assert (REGISTRY.get_sample_value(name) or 0.0) > before


async def test_mail_leaves_from_its_source_address(tmp_path: Path) -> None:
    config = sender_config(tmp_path, source="127.0.0.5")
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO, source="127.0.0.5"), BODY))
        await sender.events(1)
        assert server.sessions[0].peer[0] == "127.0.0.5"


async def test_loopback_is_refused_outside_tests(tmp_path: Path) -> None:
    config = sender_config(tmp_path, routing={"allow_loopback": False})
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = of_type(await sender.events(2), EventType.FAILED)
        assert event.reply is not None
        assert event.reply.enhanced == "5.4.6"
        assert server.sessions == []


@pytest.mark.parametrize("stage", ["mail", "data"])
async def test_a_drain_leaves_what_is_before_its_dot_in_the_log(tmp_path: Path, stage: str) -> None:
    config = sender_config(tmp_path)
    log = open_log(tmp_path / "log.sqlite", config.log)
    async with scripted({stage: ["silence"]}) as server, sending(tmp_path, config, log=log) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        await until(lambda: server.sessions and stage.upper() in "".join(server.sessions[0].lines))
    async with scripted(port=0) as server, sending(tmp_path, config, log=log) as sender:
        assert not await sender.committed_everything()
        (event,) = await sender.events(1)
        assert event.attempt == 1, "nothing was recorded of the attempt that the drain ended"
    await log.close()


async def test_a_drain_waits_for_what_is_past_its_dot(tmp_path: Path) -> None:
    config = sender_config(tmp_path)
    log = open_log(tmp_path / "log.sqlite", config.log)
    async with scripted() as server:
        answer = asyncio.Event()
        original = server._answer

        async def late(verb: str, writer: asyncio.StreamWriter) -> int:
            if verb == "dot":
                answer.set()
                await asyncio.sleep(0.5)
            return await original(verb, writer)

        server._answer = late  # type: ignore[method-assign]
        async with sending(tmp_path, config, log=log) as sender:
            await sender.put((a_delivery(server.port, TO), BODY))
            await answer.wait()
        assert server.messages == 1
    async with sending(tmp_path, config, log=log) as sender:
        (event,) = await sender.events(1)
        assert event.type is EventType.DELIVERED
        assert await sender.committed_everything()
    await log.close()


async def test_a_record_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.context.log.append([Append("outbound.default.default.urgent", b"k", b"\xff\xff not a record")])
        await sender.put((a_delivery(server.port, TO), BODY))
        assert (await sender.events(1))[0].type is EventType.DELIVERED
        letters = await sender.context.log.consumer([DEAD_LETTERS], "test")
        assert len(await letters.poll(10, 2.0)) == 1
        await until(lambda: sender.service._held == 0)
        assert await sender.committed_everything()
