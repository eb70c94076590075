"""The certificate that clients see: the new one after a renewal, the old one while the new one is broken."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from postrail.core.ingress_config import TLSConfig
from postrail.demo.credentials import server_context, write_certificate
from postrail.ingress.connection import ConnectionEnded
from postrail.ingress.encryption import EncryptedConnection
from postrail.shell.tls_server import ServerCertificate
from tests.support.ingress import (
    SUBMISSION,
    SUBMISSIONS,
    Ingress,
    client_context,
    connect,
    in_thread,
    running,
    settings,
)


def shown(ingress: Ingress, listener: int) -> bytes:
    if listener == SUBMISSIONS:
        with (
            socket.create_connection(("127.0.0.1", ingress.port(listener)), timeout=10) as plain,
            client_context().wrap_socket(plain) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True) or b""
    with connect(ingress, listener, tls=True) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        return client.sock.getpeercert(binary_form=True) or b""


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    data = settings(tmp_path)
    data["ingress"]["tls"]["reload_seconds"] = 0.05
    async with running(tmp_path, data) as ingress:
        before = [await in_thread(shown, ingress, listener) for listener in (SUBMISSION, SUBMISSIONS)]
        assert before[0] == before[1] != b""
        write_certificate(tmp_path, "renewed.example.com")
        async with asyncio.timeout(10):
            while any([await in_thread(shown, ingress, listener) in before for listener in (SUBMISSION, SUBMISSIONS)]):  # noqa: ASYNC110  # renewal is seen from outside only
                await asyncio.sleep(0.05)


def test_a_broken_certificate_does_not_replace_the_one_in_use(tmp_path: Path) -> None:
    certificate_file, key_file = write_certificate(tmp_path, "mail.example.com")
    served = ServerCertificate(TLSConfig(certificate_file=str(certificate_file), key_file=str(key_file)))
    in_use = served.context
    certificate_file.write_text("half a certifica")
    assert not served.refresh()
    assert served.context is in_use
    write_certificate(tmp_path, "mail.example.com")
    assert served.refresh()
    assert served.context is not in_use


async def test_a_client_that_never_shakes_hands_keeps_neither_others_nor_the_drain(tmp_path: Path) -> None:
    async with running(tmp_path, settings(tmp_path)) as ingress:
        silent = [socket.create_connection(("127.0.0.1", ingress.port(SUBMISSIONS))) for _ in range(50)]
        assert await in_thread(shown, ingress, SUBMISSIONS) != b""
        async with asyncio.timeout(5):
            await ingress.service.drain()
        for connection in silent:
            connection.close()


async def test_a_failed_handshake_frees_its_place(tmp_path: Path) -> None:
    def fail(ingress: Ingress) -> None:
        with socket.create_connection(("127.0.0.1", ingress.port(SUBMISSIONS)), timeout=10) as plain:
            plain.sendall(b"EHLO in the clear\r\n")
            while plain.recv(1000):
                pass

    async with running(tmp_path, settings(tmp_path, max_connections=1)) as ingress:
        for _ in range(3):
            await in_thread(fail, ingress)
        assert await in_thread(shown, ingress, SUBMISSIONS) != b""


async def test_a_client_that_left_before_the_handshake_is_not_waited_for(tmp_path: Path) -> None:
    # The loop of its own accord waits for such a handshake for ever.
    context = server_context(*write_certificate(tmp_path, "mail.example.com"))
    loop = asyncio.get_running_loop()
    met: asyncio.Future[EncryptedConnection] = loop.create_future()
    gone = asyncio.Event()

    class Watched(EncryptedConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            met.set_result(self)

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            gone.set()

    server = await loop.create_server(lambda: Watched(loop), "127.0.0.1", 0)
    _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
    connection = await met
    client.transport.abort()
    connection.transport.abort()
    await gone.wait()
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionEnded):
            await connection.start_tls(context)
    server.close()
