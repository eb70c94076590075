"""On a log that stores a body with every record, a body of many deliveries or deferrals goes to the blob store, once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postrail.core.records import BlobRef, EventType, Message
from postrail.core.topics import deferred
from postrail.log.interface import Append, Log, Record
from postrail.log.sqlite.log import SqliteLog
from postrail.routing import desk
from postrail.routing.service import RoutingService
from postrail.sender import settling
from postrail.wire import codec
from tests.support.dns_server import DnsServer, serving, zone_text
from tests.support.scripted_smtp import scripted
from tests.support.sending import Sending, a_delivery, sender_config, sending
from tests.support.stage_setting import Setting, message, setting

URGENT = "outbound.default.default.urgent"
SITES = ["user@one.test", "user@two.test", "user@three.test"]
ZONES = {
    **{name: zone_text(name, "@ IN MX 10 mx\nmx IN A 127.0.0.5\n") for name in ("one.test", "two.test", "three.test")},
    "null.test": zone_text("null.test", "@ IN MX 0 .\n"),
}
BODY = b"0123456789abcd\r\n" * (100 << 6)
"""100 KiB: three of them are more than a record may carry."""


@pytest.fixture
def _body_in_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteLog, "shares_bodies", False)
    monkeypatch.setattr(desk, "BLOB_RETRY_SECONDS", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with serving(ZONES) as running:
        yield running


@pytest.fixture
async def routing(tmp_path: Path, server: DnsServer) -> AsyncIterator[Setting]:
    async with setting(tmp_path, routing={"dns": {"nameservers": [server.nameserver]}}) as made:
        service = RoutingService(made.context)
        await service.start()
        yield made
        await service.drain()


def blob_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


async def put(log: Log, body: bytes, *recipients: str, number: int = 0, ret: str = "") -> None:
    await log.append([Append("signed.urgent", b"key", message(*recipients, number=number, ret=ret), body)])


def blobs_of(records: list[Record]) -> list[BlobRef | None]:
    return [codec.decode_delivery(record.value).blob for record in records]


async def test_a_body_that_is_shared_stays_in_the_log(routing: Setting, tmp_path: Path) -> None:
    await put(routing.log, BODY, *SITES)
    records = await routing.taken(URGENT, 3)
    assert blobs_of(records) == [None] * 3
    assert blob_files(tmp_path) == []


@asynccontextmanager
async def _deferred_twice(folder: Path, *, store: bool = True) -> AsyncIterator[Sending]:
    """A sender after an attempt that deferred two recipients for different reasons."""
    rcpt = ["450 4.2.1 greylisted", "451 4.7.1 slow down"]
    async with scripted(rcpt=rcpt) as server, sending(folder, sender_config(folder)) as sender:
        if not store:
            (folder / "blobs").rename(folder / "away")
        await sender.put((a_delivery(server.port, "a@example.com", "b@example.com"), BODY * 2))
        events = await sender.events(2)
        assert {event.type for event in events} == {EventType.DEFERRED}
        yield sender


@pytest.mark.usefixtures("_body_in_every_record")
class TestSpill:
    async def test_a_body_of_many_deliveries_is_stored_once(self, routing: Setting, tmp_path: Path) -> None:
        await put(routing.log, BODY, *SITES)
        records = await routing.taken(URGENT, 3)
        assert [record.body for record in records] == [None] * 3
        (ref,) = set(blobs_of(records))
        assert ref is not None
        assert await routing.context.blobs.read(ref) == BODY
        await put(routing.log, BODY, *SITES)  # a crash before the commit does it all again
        assert set(blobs_of(await routing.taken(URGENT, 6))) == {ref}
        assert len(blob_files(tmp_path)) == 1

    async def test_few_deliveries_of_a_small_body_carry_it(self, routing: Setting, tmp_path: Path) -> None:
        await put(routing.log, BODY, *SITES[:2])
        records = await routing.taken(URGENT, 2)
        assert blobs_of(records) == [None] * 2
        assert all(record.body is not None for record in records)
        assert blob_files(tmp_path) == []

    async def test_mail_waits_for_a_blob_store_that_is_away(self, routing: Setting, tmp_path: Path) -> None:
        blobs, away = tmp_path / "blobs", tmp_path / "away"
        blobs.rename(away)
        await put(routing.log, BODY, *SITES)
        await put(routing.log, BODY, SITES[0], number=1)
        (passed,) = await routing.taken(URGENT, 1)
        assert codec.decode_delivery(passed.value).blob is None
        await routing.nothing_in()
        away.rename(blobs)
        assert sum(blob is not None for blob in blobs_of(await routing.taken(URGENT, 4))) == 3

    async def test_a_small_body_from_the_store_is_returned(self, routing: Setting) -> None:
        writer = routing.context.blobs.writer()
        await writer.write(b"a small body\r\n")
        mail = codec.decode_message(message("user@null.test", ret="FULL"))
        value = codec.encode_message(Message(mail.envelope, mail.header_block, await writer.commit()))
        await routing.log.append([Append("signed.urgent", b"key", value)])
        (notice,) = await routing.taken("accepted.urgent", 1)
        assert notice.body is not None
        assert b"a small body\r\n" in await notice.body.load()

    async def test_a_body_that_is_gone_is_not_returned_but_the_sender_is_told(self, routing: Setting) -> None:
        mail = codec.decode_message(message("user@null.test", ret="FULL"))
        value = codec.encode_message(Message(mail.envelope, mail.header_block, BlobRef("ab/" + "0" * 32, 5, b"")))
        await routing.log.append([Append("signed.urgent", b"key", value)])
        (notice,) = await routing.taken("accepted.urgent", 1)
        assert notice.body is not None
        assert b"Subject: a test" in await notice.body.load()

    async def test_deferrals_of_a_large_body_refer_to_it(self, tmp_path: Path) -> None:
        async with _deferred_twice(tmp_path) as sender:
            first, second = await sender.deferrals()
            assert first.delivery.blob == second.delivery.blob
            assert first.delivery.blob is not None
            assert await sender.blobs.read(first.delivery.blob) == BODY * 2

    async def test_deferrals_carry_the_body_where_the_store_does_not_take_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "SPILL_SECONDS", 0.2)
        async with _deferred_twice(tmp_path, store=False) as sender:
            assert [waiting.delivery.blob for waiting in await sender.deferrals()] == [None, None]
            tiers = [deferred(tier) for tier in sender.context.config.delivery.retry.tiers_seconds]
            consumer = await sender.context.log.consumer(tiers, "bodies")
            records = await consumer.poll(10, 1.0)
            await consumer.close()
            bodies = [record.body for record in records]
            assert [await body.load() for body in bodies if body is not None] == [BODY * 2] * 2

    async def test_an_expired_blob_with_ret_full_is_left_to_routing(self, tmp_path: Path) -> None:
        async with scripted() as server, sending(tmp_path, sender_config(tmp_path)) as sender:
            writer = sender.blobs.writer()
            await writer.write(b"a small body\r\n")
            blob = await writer.commit()
            late = a_delivery(server.port, "user@example.com", blob=blob, received_at=1.0, expires_at=2.0, ret="FULL")
            await sender.put((late, None))
            (event,) = await sender.events(1)
            assert event.type is EventType.PARKED
            (waiting,) = await sender.deferrals()
            assert waiting.delivery.blob == blob
