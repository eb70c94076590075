"""The sender against a real Postfix: TLS, its size limit, its refusals; and smtp-sink at speed, without loss or repetition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from postrail.core.records import EventType
from tests.support.postfix import Postfix
from tests.support.processes import daemon_folder, free_port
from tests.support.sending import BODY, a_delivery, of_type, sender_config, sending
from tests.support.smtp_tools import SmtpSink


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    with daemon_folder("postfix") as folder:
        server = Postfix(folder, "127.0.0.1", free_port(), ["example.com"])
        server.start()
        try:
            yield server
        finally:
            server.close()


async def test_postfix_takes_mail_over_tls(tmp_path: Path, postfix: Postfix) -> None:
    async with sending(tmp_path, sender_config(tmp_path)) as sender:
        body = b"A line.\r\n.\r\n..two dots\r\nEnd.\r\n"
        await sender.put((a_delivery(postfix.port, "tls@example.com"), body))
        (event,) = await sender.events(1)
        assert event.type is EventType.DELIVERED
        assert event.tls.startswith("TLSv1.3")
        assert event.reply is not None
        assert "queued as" in event.reply.text
        (message,) = postfix.wait_for_mail("tls@example.com")
        assert message.endswith(b"\r\n\r\n" + body)


async def test_postfix_judges_recipients_one_by_one(tmp_path: Path, postfix: Postfix) -> None:
    postfix.policy.answer("later@example.com", "DEFER_IF_PERMIT 4.2.1 greylisted")
    async with sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put(
            (a_delivery(postfix.port, "good@example.com", "nobody1@example.com", "later@example.com"), BODY)
        )
        events = await sender.events(5)
        assert of_type(events, EventType.DELIVERED)[0].recipients == ("good@example.com",)
        assert of_type(events, EventType.FAILED)[0].recipients == ("nobody1@example.com",)
        assert of_type(events, EventType.DEFERRED)[0].recipients == ("later@example.com",)
        failed = of_type(events, EventType.FAILED)[0].reply
        assert failed is not None
        assert (failed.code, failed.enhanced) == (550, "5.1.1")
        assert len(postfix.wait_for_mail("good@example.com")) == 1


async def test_postfix_refuses_what_is_too_large(tmp_path: Path, postfix: Postfix) -> None:
    async with sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(postfix.port, "large@example.com"), b"x" * 70 + b"\r\n" + b"y\r\n" * 100_000))
        (event,) = of_type(await sender.events(2), EventType.FAILED)
        assert event.reply is not None
        assert event.reply.enhanced == "5.3.4"
        assert postfix.mail_for("large@example.com") == []


async def test_a_refused_transaction_leaves_the_connection_usable(tmp_path: Path, postfix: Postfix) -> None:
    config = sender_config(tmp_path, default_limits={"connections": 1})
    async with sending(tmp_path, config) as sender:
        names = ("nobody2", "after", "nobody3", "last")
        await sender.put(*((a_delivery(postfix.port, f"{name}@example.com"), BODY) for name in names))
        events = await sender.events(8)
        assert len(of_type(events, EventType.DELIVERED)) == 2
        assert len(of_type(events, EventType.FAILED)) == 2


async def test_a_thousand_messages_arrive_once_each(tmp_path: Path) -> None:
    with daemon_folder("sink") as folder:
        sink = SmtpSink(folder, "127.0.0.1", free_port())
        sink.start()
        try:
            async with sending(tmp_path, sender_config(tmp_path)) as sender:
                addresses = [f"user{number}@example.com" for number in range(1000)]
                await sender.put(*((a_delivery(sink.port, address), BODY) for address in addresses))
                events = await sender.events(1000, within_seconds=60)
                assert len(of_type(events, EventType.DELIVERED)) == 1000
                assert await sender.committed_everything()
            arrived = [recipient for received in sink.received() for recipient in received.recipients]
            assert sorted(arrived) == sorted(addresses)
        finally:
            sink.stop()
