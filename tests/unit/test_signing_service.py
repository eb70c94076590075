"""What signing makes of one message, against a log in memory: who signs, what waits, what goes unsigned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from postrail.core import topics
from postrail.core.config import KeyConfig, SigningConfig, SigningDomainConfig
from postrail.core.records import BlobRef, Envelope, Lane, Message, MessageId, Recipient
from postrail.log.interface import Append, TopicPartition
from postrail.log.progress import Progress
from postrail.shell import stage as stage_module
from postrail.shell.blobs import BlobUnavailable
from postrail.shell.context import Context
from postrail.signing import keys as keys_module
from postrail.signing import service as service_module
from postrail.signing.keys import KeyRing, KeyUnavailable
from postrail.signing.service import SigningService
from postrail.wire.codec import decode_message, encode_message
from tests.support.dkim_records import published
from tests.support.memory_log import MemoryLog

BULK = TopicPartition("accepted.bulk", 0)


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def rsa_pem() -> bytes:
    return pem(rsa.generate_private_key(65537, 2048))


@pytest.fixture
def key_files(tmp_path: Path, rsa_pem: bytes) -> tuple[Path, Path]:
    rsa_file, ed_file = tmp_path / "rsa.pem", tmp_path / "ed.pem"
    rsa_file.write_bytes(rsa_pem)
    ed_file.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    return rsa_file, ed_file


def signing_config(files: tuple[Path, Path], *, require: bool = True) -> SigningConfig:
    keys = tuple(KeyConfig(selector=name, key_file=str(file)) for name, file in zip(("r1", "e1"), files, strict=True))
    return SigningConfig(
        domains={"example.com": SigningDomainConfig(keys=keys)}, require=require, key_reload_seconds=0.0
    )


class Blobs:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.failures: list[Exception] = []

    async def chunks(self, ref: BlobRef) -> AsyncIterator[bytes]:
        if self.failures:
            raise self.failures.pop()
        for start in range(0, len(self.body), 1000):
            yield self.body[start : start + 1000]


def service(log: MemoryLog, config: SigningConfig, body: bytes | Blobs = b"") -> SigningService:
    blobs = body if isinstance(body, Blobs) else Blobs(body)
    context = SimpleNamespace(log=log, clock=lambda: NOW, blobs=blobs, config=SimpleNamespace(signing=config))
    return SigningService(cast("Context", context))


NOW = 1_700_000_000.0


def message(
    author: bytes = b"Me <me@example.com>",
    *,
    own: bool = False,
    blob: BlobRef | None = None,
    expires_at: float = NOW + 60,
) -> Message:
    envelope = Envelope(
        MessageId("m" * 26),
        "" if own else "me@example.com",
        (Recipient("you@example.net"),),
        "" if own else "app",
        "marketing",
        Lane.BULK,
        NOW - 60,
        expires_at,
        100,
    )
    return Message(envelope, b"From: " + author + b"\r\nSubject: hello\r\n", blob)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the loop under test has no event for every state
            await asyncio.sleep(0)


async def accept(log: MemoryLog, accepted: Message, body: bytes | None = b"Hello \t you\r\n") -> None:
    await log.append([Append("accepted.bulk", b"key", encode_message(accepted), body)])


async def run(log: MemoryLog, signing: SigningService) -> Message:
    await signing.start()
    await until(lambda: log.progress.get(("signing", BULK)) == Progress(1))
    await signing.drain()
    (record,) = log.topics[topics.laned(topics.SIGNED, Lane.BULK)]
    assert record.key == b"key"
    return decode_message(record.value)


def verified(signed: Message, body: bytes, files: tuple[Path, Path]) -> bool:
    """Whether both signatures are there and the RSA one is valid for dkimpy; opendkim judges both in the integration suite."""
    assert [line.split(b"; ")[1] for line in signed.header_block.split(b"DKIM-Signature: ")[1:]] == [
        b"a=rsa-sha256",
        b"a=ed25519-sha256",
    ]
    content = signed.header_block + b"\r\n" + body
    return bool(dkimpy.DKIM(content).verify(0, dnsfunc=lambda name, timeout=5: published(files[0])))


async def test_one_signature_for_each_key(key_files: tuple[Path, Path]) -> None:
    log = MemoryLog()
    await accept(log, message())
    signed = await run(log, service(log, signing_config(key_files)))
    assert verified(signed, b"Hello \t you\r\n", key_files)
    with pytest.raises(dkimpy.ValidationError, match="body hash mismatch"):
        verified(signed, b"Hello Eve\r\n", key_files)
    assert signed.header_block.endswith(message().header_block)
    assert signed.envelope == message().envelope


async def test_a_body_in_the_blob_store_is_signed_in_pieces(key_files: tuple[Path, Path]) -> None:
    body = (b"line of text \t with spaces  \r\n" * 400) + b"\r\n" * 3000
    log = MemoryLog()
    await accept(log, message(blob=BlobRef("aa/bb", len(body), b"x")), None)
    signed = await run(log, service(log, signing_config(key_files), body))
    assert verified(signed, body, key_files)
    assert signed.blob == BlobRef("aa/bb", len(body), b"x")


async def test_a_blob_store_that_is_away_keeps_the_mail_until_it_is_back(
    key_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service_module, "BLOB_RETRY_SECONDS", 0)
    body = b"a large body\r\n"
    blobs = Blobs(body)
    blobs.failures = [BlobUnavailable("the storage is away") for _ in range(10)]
    log = MemoryLog()
    await accept(log, message(blob=BlobRef("aa/bb", len(body), b"x")), None)
    assert verified(await run(log, service(log, signing_config(key_files), blobs)), body, key_files)
    assert blobs.failures == []
    assert "the storage is away" in capfd.readouterr().err
    assert topics.DEAD_LETTERS not in log.topics


async def test_a_body_that_is_not_in_memory_is_loaded(
    key_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    await accept(log, message())
    monkeypatch.setattr("tests.support.memory_log.MemoryBody.in_memory", None)
    signed = await run(log, service(log, signing_config(key_files)))
    assert verified(signed, b"Hello \t you\r\n", key_files)


@pytest.mark.parametrize(
    "author", [b"a@example.com", b"news@mail.example.com", b'"x, <y@other.example>" (c) <a@EXAMPLE.com>']
)
async def test_the_from_field_decides_who_signs(author: bytes, key_files: tuple[Path, Path]) -> None:
    log = MemoryLog()
    await accept(log, message(author))
    signed = await run(log, service(log, signing_config(key_files)))
    assert signed.header_block.count(b"d=example.com;") == 2


async def waits(log: MemoryLog, signing: SigningService, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    await signing.start()
    before = service_module.KEY_FAILURES._value.get()
    await until(lambda: service_module.KEY_FAILURES._value.get() > before)
    assert topics.laned(topics.SIGNED, Lane.BULK) not in log.topics
    assert ("signing", BULK) not in log.progress
    assert reason in capfd.readouterr().err


async def test_mail_that_waited_for_a_key_until_its_deadline_goes_on_to_be_returned(
    key_files: tuple[Path, Path],
) -> None:
    key_files[0].unlink()
    log = MemoryLog()
    await accept(log, message(expires_at=NOW))
    assert await run(log, service(log, signing_config(key_files))) == message(expires_at=NOW)


@pytest.mark.parametrize("broken", [None, b"", b"no key"])
async def test_a_missing_or_broken_key_keeps_the_mail_until_it_is_back(
    broken: bytes | None,
    key_files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(service_module, "KEY_RETRY_SECONDS", 0)
    log = MemoryLog()
    await accept(log, message())
    good = key_files[1].read_bytes()
    key_files[1].unlink()
    if broken is not None:
        key_files[1].write_bytes(broken)
    signing = service(log, signing_config(key_files))
    await waits(log, signing, str(key_files[1]), capfd)
    key_files[1].write_bytes(good)
    await until(lambda: log.progress.get(("signing", BULK)) == Progress(1))
    await signing.drain()
    (record,) = log.topics[topics.laned(topics.SIGNED, Lane.BULK)]
    assert verified(decode_message(record.value), b"Hello \t you\r\n", key_files)


async def test_a_domain_without_keys_waits(key_files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    await accept(log, message(b"a@notexample.com"))
    signing = service(log, signing_config(key_files))
    await waits(log, signing, "notexample.com", capfd)
    await signing.drain()


async def test_without_require_an_unlisted_domain_passes_unsigned(key_files: tuple[Path, Path]) -> None:
    log = MemoryLog()
    await accept(log, message(b"a@example.org"))
    assert await run(log, service(log, signing_config(key_files, require=False))) == message(b"a@example.org")


async def test_without_require_a_listed_domain_still_waits(
    key_files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    log = MemoryLog()
    await accept(log, message())
    key_files[0].unlink()
    signing = service(log, signing_config(key_files, require=False))
    await waits(log, signing, str(key_files[0]), capfd)
    await signing.drain()


async def test_our_own_messages_go_out_unsigned_where_the_host_name_has_no_key(key_files: tuple[Path, Path]) -> None:
    log = MemoryLog()
    own = message(b"Mail Delivery System <MAILER-DAEMON@mx.example.org>", own=True)
    await accept(log, own)
    assert await run(log, service(log, signing_config(key_files))) == own


async def test_our_own_messages_are_signed_where_the_host_name_has_a_key(key_files: tuple[Path, Path]) -> None:
    log = MemoryLog()
    await accept(log, message(b"MAILER-DAEMON@mx.example.com", own=True))
    signed = await run(log, service(log, signing_config(key_files)))
    assert verified(signed, b"Hello \t you\r\n", key_files)


def test_the_ring_reads_a_changed_file_again_and_not_before_its_time(key_files: tuple[Path, Path]) -> None:
    now = 0.0
    config = signing_config(key_files).model_copy(update={"key_reload_seconds": 60.0})
    ring = KeyRing(config, lambda: now)
    first = ring.keys("example.com")
    key_files[1].write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    now = 59.0
    assert ring.keys("example.com") is first
    now = 60.0
    second = ring.keys("example.com")
    assert second[1].sign(b"x") != first[1].sign(b"x")
    now = 120.0
    assert ring.keys("example.com") is second
    key_files[0].unlink()
    now = 180.0
    with pytest.raises(KeyUnavailable, match=r"example\.com.*rsa\.pem: No such file"):
        ring.keys("example.com")


def test_weak_and_unusable_keys_are_refused(tmp_path: Path, rsa_pem: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(ValueError, match="1024 bits"):
        keys_module.load_key(file, "s")
    private = serialization.load_pem_private_key(rsa_pem, None)
    file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match="encrypted"):
        keys_module.load_key(file, "s")
    file.write_bytes(b"no key")
    with pytest.raises(ValueError, match="PEM"):
        keys_module.load_key(file, "s")


async def test_many_that_wait_for_a_key_are_set_aside_and_signed_when_it_is_back(
    key_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "ASIDE_SPREAD", -1)  # as if much had been accepted since
    log = MemoryLog()
    await accept(log, message())
    good = key_files[1].read_bytes()
    key_files[1].unlink()
    signing = service(log, signing_config(key_files))
    await signing.start()
    await until(lambda: log.progress.get(("signing", BULK)) == Progress(1))
    await signing.drain()
    (waiting,) = log.topics[topics.ASIDE]
    assert decode_message(waiting.value) == message()

    key_files[1].write_bytes(good)
    waiting.appended_at = 0.0
    again = service(log, signing_config(key_files))
    await again.start()
    await until(lambda: log.progress.get(("signing", TopicPartition(topics.ASIDE, 0))) == Progress(1))
    assert again.problem() is None
    await again.drain()
    (record,) = log.topics[topics.laned(topics.SIGNED, Lane.BULK)]
    assert verified(decode_message(record.value), b"Hello \t you\r\n", key_files)
