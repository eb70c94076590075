"""Mail leaves through SOCKS5 proxies: from the address that each binds, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from postrail.core.config import Config, PoolConfig
from postrail.core.records import Event, EventType
from tests.support.processes import free_port
from tests.support.scripted_smtp import scripted
from tests.support.sending import BODY, a_delivery, of_type, sender_config, sending, until
from tests.support.socks_proxy import dante, microsocks

FIRST, SECOND = "127.0.44.5", "127.0.44.6"
TO = "user@example.com"


def through(path: Path, *sources: dict[str, Any], **delivery: Any) -> Config:
    """A configuration whose pool has these sources, each `address`, `proxy` and perhaps `proxy_login`."""
    delivery = {"timeouts": {"connect_seconds": 1.5}, "retry": {"site_backoff_seconds": [0.5]}, **delivery}
    pool = PoolConfig.model_validate({"sources": [{"ehlo": "out.example", "bind": "socks5", **one} for one in sources]})
    return sender_config(path, **delivery).model_copy(update={"pools": {"default": pool}})


def value(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def problem(address: str, name: str) -> float:
    return value("postrail_sender_address_problems", pool="default", address=address, problem=name)


def verified(address: str) -> float:
    return value("postrail_sender_address_verified", pool="default", address=address)


@asynccontextmanager
async def fake_proxy(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A proxy of the tests' own."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_address_has_its_proxy(tmp_path: Path) -> None:
    with dante(FIRST) as first, dante(SECOND) as second:
        config = through(tmp_path, {"address": FIRST, "proxy": first}, {"address": SECOND, "proxy": second})
        async with scripted() as server, sending(tmp_path, config) as sender:
            for source in (FIRST, SECOND):
                recipients = [f"to-{source}-{number}@example.com" for number in range(5)]
                await sender.put(*((a_delivery(server.port, one, source=source), BODY) for one in recipients))
            assert len(of_type(await sender.events(10), EventType.DELIVERED)) == 10
            assert {session.peer[0] for session in server.sessions} == {FIRST, SECOND}
            told = [(session.peer[0], line) for session in server.sessions for line in session.lines if "RCPT" in line]
            assert len(told) == 10
            assert all(peer in line for peer, line in told), "each address's mail went its own way"
            assert [verified(one) for one in (FIRST, SECOND)] == [1, 1]
            assert await sender.committed_everything()


async def test_ipv6_leaves_through_a_proxy_that_is_reached_over_ipv4(tmp_path: Path) -> None:
    with dante("::1") as proxy:
        config = through(tmp_path, {"address": "::1", "proxy": proxy})
        addresses = {"mx.example.com": ["127.0.0.1", "::1"]}
        async with scripted(address="::1") as server, sending(tmp_path, config, addresses=addresses) as sender:
            await sender.put((a_delivery(server.port, TO, source="::1"), BODY))
            await until(lambda: server.messages == 1, within_seconds=10)
            assert [session.peer[0] for session in server.sessions] == ["::1"]


async def test_nothing_is_said_from_another_address(tmp_path: Path) -> None:
    before = value("postrail_sender_source_mismatch_total")
    with dante(SECOND) as wrong:
        config = through(tmp_path, {"address": FIRST, "proxy": wrong})
        async with scripted() as server, sending(tmp_path, config) as sender:
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            (event,) = await sender.events(1)
            assert event.type is EventType.PARKED, "it waits, and no attempt is counted"
            assert [one.delivery.attempts for one in await sender.deferrals()] == [0]
            assert value("postrail_sender_source_mismatch_total") > before
            assert [line for session in server.sessions for line in session.lines] == []
            assert server.messages == 0
            assert (problem(FIRST, "mismatch"), verified(FIRST)) == (1, 0)


async def test_nothing_is_said_where_the_proxy_does_not_tell_its_address(tmp_path: Path) -> None:
    before = value("postrail_sender_source_mismatch_total")
    with microsocks(FIRST) as proxy:
        config = through(tmp_path, {"address": FIRST, "proxy": proxy})
        async with scripted() as server, sending(tmp_path, config) as sender:
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            (event,) = await sender.events(1)
            assert event.type is EventType.PARKED
            assert value("postrail_sender_source_mismatch_total") > before
            assert [line for session in server.sessions for line in session.lines] == []


async def deferral(sender: Any, port: int) -> Event:
    """The one event of a delivery that cannot go."""
    await sender.put((a_delivery(port, TO, source=FIRST), BODY))
    (event,) = await sender.events(1)
    assert event.type is EventType.DEFERRED
    assert event.reply is not None
    return event  # type: ignore[no-any-return]


async def test_mail_waits_while_the_proxy_is_down_and_goes_when_it_is_back(tmp_path: Path) -> None:
    port, before = free_port(), value("postrail_sender_connection_attempts_total", outcome="proxy")
    source = {"address": FIRST, "proxy": f"socks5://127.0.0.1:{port}"}
    config = through(tmp_path, source, default_limits={"connections": 1})
    two_hosts = {"example.com": [(10, "mx.example.com"), (20, "mx2.example.com")]}
    addresses = {"mx.example.com": ["127.0.0.1"], "mx2.example.com": ["127.0.0.1"]}
    async with scripted() as server, sending(tmp_path, config, mx=two_hosts, addresses=addresses) as sender:
        await sender.put(*((a_delivery(server.port, f"u{n}@example.com", source=FIRST), BODY) for n in range(5)))
        events = await sender.events(5)
        (deferred,) = of_type(events, EventType.DEFERRED)
        assert len(of_type(events, EventType.PARKED)) == 4, "the site is left alone meanwhile"
        assert str(deferred.reply) == (
            f"451 4.3.0 the proxy socks5://127.0.0.1:{port} of {FIRST} does not work: Connection refused"
        )
        attempts = value("postrail_sender_connection_attempts_total", outcome="proxy") - before
        assert attempts == 1, "no other host is tried through the same proxy"
        assert problem(FIRST, "proxy") == 1
        with dante(FIRST, port):
            await asyncio.sleep(0.6)
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            await until(lambda: server.messages == 1, within_seconds=10)
            assert (problem(FIRST, "proxy"), verified(FIRST)) == (0, 1)


async def test_addresses_without_mail_are_looked_at(tmp_path: Path) -> None:
    with dante(FIRST) as there:
        sources = (
            {"address": FIRST, "proxy": there},
            {"address": SECOND, "proxy": f"socks5://127.0.0.1:{free_port()}"},
            {"address": "127.0.44.7", "bind": "direct"},
            {"address": "192.0.2.1", "bind": "direct"},
            {"address": "192.0.2.2", "bind": "direct", "proxy": there},
            {"address": "192.0.2.3", "bind": "gateway"},
        )
        async with sending(tmp_path, through(tmp_path, *sources)):
            await until(lambda: problem("192.0.2.1", "unbound") == problem(SECOND, "proxy") == 1, within_seconds=10)
            for address in (FIRST, "127.0.44.7", "192.0.2.2"):
                assert [problem(address, name) for name in ("unbound", "proxy", "mismatch")] == [0, 0, 0], address
            labels = {"pool": "default", "address": "192.0.2.3"}
            assert REGISTRY.get_sample_value("postrail_sender_address_verified", labels) is None, "nobody can know"


async def test_a_direct_address_that_is_elsewhere_goes_through_its_proxy(tmp_path: Path) -> None:
    with dante(SECOND) as there, dante(FIRST) as wrong:
        here = {"address": FIRST, "bind": "direct", "proxy": there}
        elsewhere = {"address": "192.0.2.1", "bind": "direct", "proxy": wrong}
        async with scripted() as server, sending(tmp_path, through(tmp_path, here, elsewhere)) as sender:
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            await until(lambda: server.messages == 1, within_seconds=10)
            assert [session.peer[0] for session in server.sessions] == [FIRST], "bound here, without the proxy"
            await sender.put((a_delivery(server.port, TO, source="192.0.2.1"), BODY))
            await until(lambda: problem("192.0.2.1", "mismatch") == 1, within_seconds=10)
            assert server.messages == 1, "its proxy was asked, and would have sent it from another address"


async def test_a_gateway_is_believed(tmp_path: Path) -> None:
    config = through(tmp_path, {"address": "192.0.2.3", "bind": "gateway"})
    async with scripted() as server, sending(tmp_path, config) as sender:
        await sender.put((a_delivery(server.port, TO, source="192.0.2.3"), BODY))
        await until(lambda: server.messages == 1, within_seconds=10)


async def test_a_silent_proxy_is_the_proxys_fault(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        fake_proxy(serve) as proxy,
        scripted() as server,
        sending(tmp_path, through(tmp_path, {"address": FIRST, "proxy": proxy})) as sender,
    ):
        event = await deferral(sender, server.port)
        assert str(event.reply) == (f"451 4.3.0 the proxy {proxy} of {FIRST} does not work: the connection timed out")


async def test_a_proxy_that_does_not_reach_the_target_is_slow(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"\x05\x00")
        await reader.read()

    async with (
        fake_proxy(serve) as proxy,
        scripted() as server,
        sending(tmp_path, through(tmp_path, {"address": FIRST, "proxy": proxy})) as sender,
    ):
        event = await deferral(sender, server.port)
        assert event.reply is not None
        assert event.reply.enhanced == "4.4.1"
        assert event.reply.text.endswith(f"the connection through {proxy} timed out")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak SOCKS5: the first byte is 0x48"),
        (b"\x05\xff", "it does not accept no authentication"),
        (b"\x05", "it closed the connection before it answered"),
        (b"\x05\x00\x05\x00\x00\x09\x00\x00\x00\x00\x00\x00", "its answer has the unknown address type 0x09"),
        (b"\x05\x00\x05\x00\x00\x01\x7f\x00", "it closed the connection before it answered"),
    ],
)
async def test_a_broken_proxy_is_told_apart(tmp_path: Path, answer: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with (
        fake_proxy(serve) as proxy,
        scripted() as server,
        sending(tmp_path, through(tmp_path, {"address": FIRST, "proxy": proxy})) as sender,
    ):
        event = await deferral(sender, server.port)
        assert str(event.reply) == f"451 4.3.0 the proxy {proxy} of {FIRST} does not work: {reason}"


async def test_an_unreachable_target_is_not_the_proxys_fault(tmp_path: Path) -> None:
    with dante(FIRST) as proxy:
        async with sending(tmp_path, through(tmp_path, {"address": FIRST, "proxy": proxy})) as sender:
            event = await deferral(sender, 1)
            assert event.reply is not None
            assert event.reply.enhanced == "4.4.1"
            assert event.reply.text.endswith(f"the proxy {proxy} answered: connection refused")


@pytest.mark.parametrize(("password", "accepted"), [("sesame", True), ("guess", False)])
async def test_password(tmp_path: Path, password: str, accepted: bool) -> None:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    login = {"username": "sender", "password_file": str(file)}
    with microsocks(FIRST, user="sender", password="sesame") as proxy:
        config = through(tmp_path, {"address": FIRST, "proxy": proxy, "proxy_login": login})
        async with scripted() as server, sending(tmp_path, config) as sender:
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            (event,) = await sender.events(1)
            if accepted:
                assert event.type is EventType.PARKED, "connected; but this proxy does not tell its address"
                assert server.sessions
            else:
                assert "it refuses the user name and password" in str(event.reply)
                assert not server.sessions


async def test_a_proxy_may_have_a_name(tmp_path: Path) -> None:
    with dante(FIRST) as proxy:
        config = through(tmp_path, {"address": FIRST, "proxy": proxy.replace("127.0.0.1", "localhost")})
        async with scripted() as server, sending(tmp_path, config) as sender:
            await sender.put((a_delivery(server.port, TO, source=FIRST), BODY))
            await until(lambda: server.messages == 1, within_seconds=10)
