"""TLS outbound: used where it works, never trusted with what came before it, and never left out where it is required."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from postrail.core.delivery_config import TimeoutsConfig
from postrail.core.records import EventType
from postrail.core.smtp_client import SmtpClient
from postrail.demo.credentials import write_certificate
from postrail.sender.wire import ConnectionBroken, Wire
from tests.support.ingress import client_context
from tests.support.scripted_smtp import scripted
from tests.support.sending import BODY, a_delivery, sender_config, sending

TO = "user@example.com"
OFFER = ["250-x\r\n250-PIPELINING\r\n250 STARTTLS", "250-x\r\n250 PIPELINING"]


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    certificate, key = write_certificate(tmp_path, "mx.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_tls_is_used_where_it_is_offered(tmp_path: Path, server_tls: ssl.SSLContext) -> None:
    async with scripted(tls=server_tls, ehlo=OFFER) as server, sending(tmp_path, sender_config(tmp_path)) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert event.type is EventType.DELIVERED
        assert event.tls.startswith("TLSv1.3 TLS_")
        assert server.taken[0].secured
        assert server.sessions[0].lines[:3] == [
            "EHLO out.sender.example",
            "STARTTLS",
            "EHLO out.sender.example",
        ]


async def test_what_is_injected_before_tls_is_discarded(tmp_path: Path, server_tls: ssl.SSLContext) -> None:
    injected = ["220 go\r\n250-x\r\n250-DSN\r\n250 SIZE 1"]
    async with (
        scripted(tls=server_tls, ehlo=OFFER, starttls=injected) as server,
        sending(tmp_path, sender_config(tmp_path)) as sender,
    ):
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert event.type is EventType.DELIVERED, "the injected SIZE 1 would have refused it"
        assert server.taken[0].mail == "MAIL FROM:<sender@example.org>"


@pytest.mark.parametrize("starttls", ["454 4.7.0 not now", "220 go"])
async def test_opportunistic_mail_goes_in_clear_where_tls_fails(tmp_path: Path, starttls: str) -> None:
    # "220 go" without a TLS server behind it: the handshake fails, and the host is tried once more in clear.
    async with (
        scripted(ehlo=OFFER[:1], starttls=[starttls]) as server,
        sending(tmp_path, sender_config(tmp_path, timeouts={"starttls_seconds": 2})) as sender,
    ):
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert (event.type, event.tls) == (EventType.DELIVERED, "")


@pytest.mark.parametrize(
    ("ehlo", "starttls"),
    [(["250 no STARTTLS here"], "220 go"), (OFFER[:1], "454 4.7.0 not now"), (OFFER[:1], "220 go")],
)
async def test_required_tls_never_falls_back(tmp_path: Path, ehlo: list[str], starttls: str) -> None:
    config = sender_config(tmp_path, default_limits={"tls_required": True}, timeouts={"starttls_seconds": 2})
    async with scripted(ehlo=ehlo, starttls=[starttls]) as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert event.type is EventType.DEFERRED
        assert event.reply is not None
        assert event.reply.enhanced == "4.7.5"
        assert not any(line.startswith("MAIL") for session in server.sessions for line in session.lines)


async def test_a_server_that_closed_before_the_handshake_is_not_waited_for() -> None:
    # The loop of its own accord waits for such a handshake for ever.
    gone = asyncio.Event()

    class Watched(Wire):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            gone.set()

    async with scripted(banner=["close"]) as server:
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: Watched(SmtpClient(), TimeoutsConfig()), "127.0.0.1", server.port
        )
        await gone.wait()
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionBroken):
                await wire.start_tls(client_context(), "mx.example.com", 0.1)


async def test_tls_can_be_switched_off(tmp_path: Path, server_tls: ssl.SSLContext) -> None:
    config = sender_config(tmp_path, tls="none")
    async with scripted(tls=server_tls, ehlo=OFFER[:1]) as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO), BODY))
        (event,) = await sender.events(1)
        assert (event.type, event.tls) == (EventType.DELIVERED, "")
        assert "STARTTLS" not in server.sessions[0].lines
