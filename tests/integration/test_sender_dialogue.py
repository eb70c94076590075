"""The sender against servers that behave, refuse and misbehave: who gets what, and what is recorded."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from postrail.core.records import EventType, Lane, Notify, Recipient, RouteKind
from postrail.core.topics import ACCEPTED, laned
from tests.support.scripted_smtp import scripted
from tests.support.sending import BODY, HEADER, a_delivery, of_type, sender_config, sending

TO = "user@example.com"


async def test_mail_is_delivered_on_one_reused_connection(tmp_path: Path) -> None:
    limits = {"connections": 1, "messages_per_connection": 100}
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path, default_limits=limits)) as sender:
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(20)))
        events = await sender.events(20)
        assert {event.type for event in events} == {EventType.DELIVERED}
        event = events[0]
        assert (event.mx_host, event.mx_address, event.source_address) == ("mx.example.com", "127.0.0.1", "127.0.0.1")
        assert (str(event.reply), event.attempt, event.tls) == ("250 2.0.0 taken", 1, "")
        assert len(server.sessions) == 1
        assert server.sessions[0].lines[0] == "EHLO out.sender.example"
        assert [taken.content for taken in server.taken] == [HEADER + b"\r\n" + BODY] * 20
        assert await sender.committed_everything()


async def test_a_connection_ends_after_its_share_of_messages(tmp_path: Path) -> None:
    limits = {"connections": 1, "messages_per_connection": 3}
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path, default_limits=limits)) as sender:
        await sender.put(*((a_delivery(server.port, f"u{number}@example.com"), BODY) for number in range(9)))
        await sender.events(9)
        assert len(server.sessions) == 3
        assert server.most_open == 1
        assert all(session.lines[-1] == "QUIT" for session in server.sessions[:2])


async def test_an_idle_connection_is_kept_for_its_time_after_each_message_and_then_ended(tmp_path: Path) -> None:
    config = sender_config(tmp_path, timeouts={"idle_seconds": 1.5}, default_limits={"connections": 1})
    async with scripted() as server, sending(tmp_path, config) as sender:
        for number in range(3):  # the second and the third time lie within the one begun before
            await sender.put((a_delivery(server.port, f"u{number}@example.com"), BODY))
            await sender.events(number + 1, group=f"after {number}")
            await asyncio.sleep(0.7)
        (session,) = server.sessions
        assert server.messages == 3
        assert not session.ended_by_client, "0.7 s after the last message"
        ended_by = time.monotonic() + 5
        while not session.ended_by_client:
            assert time.monotonic() < ended_by
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("pipelining", [True, False])
async def test_mixed_answers_are_each_recipients_own(tmp_path: Path, pipelining: bool) -> None:
    ehlo = ["250-x\r\n250-PIPELINING\r\n250 DSN"] if pipelining else ["250 x"]
    rcpt = ["250 ok", "450 4.2.1 greylisted", "550 5.1.1 no such user"]
    three = [Recipient(f"{name}@example.com", Notify.FAILURE) for name in ("a", "b", "c")]
    async with scripted(ehlo=ehlo, rcpt=rcpt) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, *three), BODY))
        events = await sender.events(5)
        assert of_type(events, EventType.DELIVERED)[0].recipients == ("a@example.com",)
        assert of_type(events, EventType.DEFERRED)[0].recipients == ("b@example.com",)
        assert of_type(events, EventType.FAILED)[0].recipients == ("c@example.com",)
        assert len(of_type(events, EventType.NOTIFIED)) == 1
        (waiting,) = await sender.deferrals()
        assert [recipient.address for recipient in waiting.delivery.envelope.recipients] == ["b@example.com"]
        assert server.messages == 1


@pytest.mark.parametrize("stage", ["banner", "mail", "rcpt", "data", "dot"])
async def test_421_requeues_and_the_connection_is_not_reused(tmp_path: Path, stage: str) -> None:
    async with scripted({stage: ["421 4.3.2 shutting down"]}) as server:
        async with sending(tmp_path, sender_config(tmp_path)) as sender:
            await sender.put((a_delivery(server.port, TO), BODY))
            (event,) = await sender.events(1)
            assert event.type is EventType.DEFERRED
            assert event.reply is not None
            assert event.reply.code == 421
            assert len(await sender.deferrals()) == 1
            await sender.put((a_delivery(server.port, TO), BODY))
            _, parked = await sender.events(2, group="later")
            assert parked.type is EventType.PARKED, "the site is left alone"
        assert server.messages == 0
        assert len(server.sessions) == 1


async def test_a_stale_reused_session_is_replaced_at_once(tmp_path: Path) -> None:
    mail = ["250 ok", "421 4.7.0 too many messages in this session", "250 ok"]
    limits = {"connections": 1}
    async with (
        scripted(mail=mail) as server,
        sending(tmp_path, sender_config(tmp_path, default_limits=limits)) as sender,
    ):
        await sender.put((a_delivery(server.port, "a@example.com"), BODY), (a_delivery(server.port, TO), BODY))
        events = await sender.events(2)
        assert {event.type for event in events} == {EventType.DELIVERED}
        assert len(server.sessions) == 2


async def test_an_unanswered_dot_is_ambiguous_and_retried_later(tmp_path: Path) -> None:
    config = sender_config(tmp_path, timeouts={"final_dot_seconds": 0.3})
    async with scripted(dot=["silence"]) as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        events = await sender.events(2)
        (ambiguous,) = of_type(events, EventType.AMBIGUOUS)
        assert ambiguous.detail == "may be delivered more than once"
        (deferral,) = await sender.deferrals()
        assert deferral.due_at >= time.time() + 200, "not at once"
        await asyncio.sleep(0.2)
        assert len(server.sessions) == 1


async def test_a_connection_that_ends_after_the_dot_is_ambiguous(tmp_path: Path) -> None:
    async with scripted(dot=["close"]) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        assert of_type(await sender.events(2), EventType.AMBIGUOUS)
        assert len(server.sessions) == 1


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_a_connection_that_ends_before_the_dot_is_replaced_at_once(tmp_path: Path, stage: str) -> None:
    async with scripted({stage: ["close", {"data": "354 go"}.get(stage, "250 ok")]}) as server:
        async with sending(tmp_path, sender_config(tmp_path)) as sender:
            await sender.put((a_delivery(server.port, TO), BODY))
            (event,) = await sender.events(1)
            assert event.type is EventType.DELIVERED
        assert (server.messages, len(server.sessions)) == (1, 2)


async def test_a_server_that_drops_every_connection_defers(tmp_path: Path) -> None:
    async with scripted(mail=["close"]) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert event.type is EventType.DEFERRED
        assert len(server.sessions) == 3, "tried again at once twice, then later"


async def test_disconnect_in_a_large_content(tmp_path: Path) -> None:
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        server.drop_content_after = 100_000
        writer = sender.blobs.writer()
        for _ in range(100):
            await writer.write((b"y" * 98 + b"\r\n") * 1000)
        delivery = a_delivery(server.port, TO, blob=await writer.commit())
        await sender.put((delivery, None))
        (event,) = await sender.events(1)
        assert event.type is EventType.DEFERRED, "the dot was never sent, so nothing is ambiguous"
        assert server.messages == 0


async def test_a_blob_arrives_whole(tmp_path: Path) -> None:
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        body = b"".join(b".%d\r\n" % number for number in range(300_000))
        writer = sender.blobs.writer()
        await writer.write(body)
        await sender.put((a_delivery(server.port, TO, blob=await writer.commit()), None))
        (event,) = await sender.events(1)
        assert event.type is EventType.DELIVERED
        assert server.taken[0].content == HEADER + b"\r\n" + body


@pytest.mark.parametrize(
    ("replies", "timeouts"),
    [
        ({"banner": ["silence"]}, {"greeting_seconds": 0.2}),
        ({"banner": ["garbage in, nothing out"]}, {}),
        ({"banner": ["close"]}, {}),
        ({"banner": ["554 5.7.1 no"]}, {}),
        ({"ehlo": ["close"]}, {}),
        ({"ehlo": ["550 no"], "helo": ["550 no"]}, {}),
    ],
)
async def test_the_next_host_is_tried(
    tmp_path: Path, replies: dict[str, list[str]], timeouts: dict[str, float]
) -> None:
    config = sender_config(tmp_path, timeouts=timeouts)
    mx = {"example.com": [(10, "bad.example.com"), (20, "good.example.com")]}
    addresses = {"bad.example.com": ["127.0.0.1"], "good.example.com": ["127.0.0.2"]}
    async with scripted(replies) as bad, scripted(address="127.0.0.2", port=bad.port) as good:
        async with sending(tmp_path, config, mx=mx, addresses=addresses) as sender:
            await sender.put((a_delivery(bad.port, TO), BODY))
            (event,) = await sender.events(1)
            assert (event.type, event.mx_host) == (EventType.DELIVERED, "good.example.com")
        assert (bad.messages, good.messages) == (0, 1)


async def test_every_address_of_a_host_is_tried(tmp_path: Path) -> None:
    addresses = {"mx.example.com": ["127.0.0.3", "::1", "127.0.0.2"]}
    async with (
        scripted(address="127.0.0.2") as server,
        sending(tmp_path, sender_config(tmp_path), addresses=addresses) as sender,
    ):
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert (event.type, event.mx_address) == (EventType.DELIVERED, "127.0.0.2")


async def test_the_relay_of_last_resort(tmp_path: Path) -> None:
    async with scripted(address="127.0.0.9") as relay:
        config = sender_config(tmp_path, routing={"fallback_relay": {"host": "127.0.0.9", "port": relay.port}})
        async with sending(tmp_path, config) as sender:
            await sender.put((a_delivery(1, TO), BODY))
            (event,) = await sender.events(1)
            assert (event.type, event.mx_host) == (EventType.DELIVERED, "127.0.0.9")


async def test_helo_where_ehlo_is_unknown(tmp_path: Path) -> None:
    async with scripted(ehlo=["500 what"]) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        assert (await sender.events(1))[0].type is EventType.DELIVERED
        assert server.sessions[0].lines[:3] == [
            "EHLO out.sender.example",
            "HELO out.sender.example",
            "MAIL FROM:<sender@example.org>",
        ]


@pytest.mark.parametrize(
    ("ehlo", "envelope", "status"),
    [
        ("250 x", {"eight_bit": True}, "5.6.3"),
        ("250-x\r\n250 8BITMIME", {"smtputf8": True, "reverse_path": "grüße@example.org"}, "5.6.7"),
        ("250-x\r\n250 SIZE 50", {}, "5.3.4"),
    ],
)
async def test_what_the_server_cannot_take_fails(
    tmp_path: Path, ehlo: str, envelope: dict[str, Any], status: str
) -> None:
    async with scripted(ehlo=[ehlo]) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO, **envelope), BODY))
        (event,) = of_type(await sender.events(2), EventType.FAILED)
        assert event.reply is not None
        assert event.reply.enhanced == status
        assert "MAIL" not in "".join(server.sessions[0].lines)


async def test_a_bare_line_feed_never_leaves(tmp_path: Path) -> None:
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        smuggle = b"hello\r\n.\nMAIL FROM:<evil@example.org>\r\n"
        await sender.put((a_delivery(server.port, TO), smuggle))
        (event,) = of_type(await sender.events(2), EventType.FAILED)
        assert event.reply is not None
        assert event.reply.enhanced == "5.6.0"
        assert server.messages == 0
        await sender.put((a_delivery(server.port, TO), BODY))
        assert of_type(await sender.events(4, group="next"), EventType.DELIVERED)


async def test_expired_mail_is_given_up_without_an_attempt(tmp_path: Path) -> None:
    async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO, expires_at=time.time() - 1), BODY))
        events = await sender.events(2)
        assert of_type(events, EventType.EXPIRED)
        assert of_type(events, EventType.NOTIFIED)
        assert server.sessions == []


@pytest.mark.parametrize(("ret", "whole"), [("FULL", True), ("HDRS", False)])
async def test_expired_mail_goes_back_as_its_sender_asked(tmp_path: Path, ret: str, whole: bool) -> None:
    async with sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(1, TO, expires_at=time.time() - 1, ret=ret), BODY))
        await sender.events(2)
        lanes = [laned(ACCEPTED, lane) for lane in Lane]
        (notice,) = await (await sender.context.log.consumer(lanes, "test")).poll(10, 5.0)
        assert notice.body is not None
        assert (BODY in await notice.body.load()) is whole


async def test_lmtp_over_a_unix_socket_answers_for_each_recipient(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    dot = ["250 2.0.0 stored", "452 4.2.2 over quota", "550 5.2.1 disabled"]
    async with scripted(lmtp=True, unix=path, dot=dot) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        unix = f"unix:{path}"
        three = ("a@local.example", "b@local.example", "c@local.example")
        await sender.put((a_delivery(0, *three, kind=RouteKind.LMTP, next_hop=unix, site=unix, source=""), BODY))
        events = await sender.events(4)
        assert of_type(events, EventType.DELIVERED)[0].recipients == ("a@local.example",)
        assert of_type(events, EventType.DEFERRED)[0].recipients == ("b@local.example",)
        assert of_type(events, EventType.FAILED)[0].recipients == ("c@local.example",)
        assert server.sessions[0].lines[0] == "LHLO mx.sender.example"
