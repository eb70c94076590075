"""opendkim verifies what the signing service makes of awkward messages: both algorithms, over the embedded log."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from postrail.core import dkim_record, header_block, topics
from postrail.core.config import KeyConfig, SigningConfig, SigningDomainConfig
from postrail.core.log_config import LogConfig
from postrail.core.records import Envelope, Lane, Message, MessageId, Recipient
from postrail.log.interface import Append
from postrail.log.sqlite.log import open_log
from postrail.shell.blobs import CHUNK_BYTES, DirectoryBlobStore
from postrail.shell.context import Context
from postrail.signing.service import SigningService
from postrail.wire.codec import decode_message, encode_message
from tests.support.dkim_records import published
from tests.support.tools import require_tool

FROM = b"From: me@example.com\r\n"
HEADERS = (
    FROM
    + b"To: you@example.net\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 07:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
)
MESSAGES = {
    "plain": HEADERS + b"\r\nhello\r\n",
    "empty body": HEADERS + b"\r\n",
    "only empty lines": HEADERS + b"\r\n\r\n\r\n",
    "white space at line ends": HEADERS + b"\r\na \t b  \r\n \t\r\nc\t\r\n \r\n\r\n",
    "folded fields": FROM + b"Subject: a\r\n\tfolded  \r\n   field \t\r\nTo:\r\n you@example.net\r\n\r\nbody\r\n",
    "repeated fields": HEADERS + b"Subject: second\r\nReferences: <1@x>\r\nReferences: <2@x>\r\n\r\nbody\r\n",
    "spaces before the colon": FROM + b"Subject  : spaced\r\n\r\nbody\r\n",
    "empty field": FROM + b"Subject:\r\nReply-To: \r\n\r\nbody\r\n",
    "8bit": HEADERS + b"Content-Transfer-Encoding: 8bit\r\n\r\nna\xc3\xafve \xff\xfe\r\n",
    "dots": HEADERS + b"\r\n.\r\n..\r\n.x\r\n",
    "a long line": HEADERS + b"\r\n" + b"x" * 900 + b"  " + b"y" * 60 + b"\r\n",
    "a blob": HEADERS + b"\r\n" + b"a line \t of a large body  \r\n" * (2 * CHUNK_BYTES // 27) + b"\r\n" * 40_000,
}
"""Content by what is special about it."""
INLINE_LIMIT_BYTES = 64 << 10


@pytest.fixture(scope="module")
def opendkim() -> str:
    return require_tool("opendkim", "verifies signatures")


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    openssl = require_tool("openssl", "makes keys that are not of our making")
    folder = tmp_path_factory.mktemp("keys")
    files = {"r1": folder / "r1.pem", "e1": folder / "e1.pem"}
    for file, arguments in zip(files.values(), (["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ["ED25519"]), strict=True):
        subprocess.run([openssl, "genpkey", "-quiet", "-out", file, "-algorithm", *arguments], check=True)
    return files


async def signed(contents: list[bytes], key_files: dict[str, Path], folder: Path) -> list[bytes]:
    """The contents after the signing service, in the order that they went in."""
    keys = tuple(KeyConfig(selector=selector, key_file=str(file)) for selector, file in key_files.items())
    config = SigningConfig(domains={"example.com": SigningDomainConfig(keys=keys)})
    log = open_log(folder / "log.db", LogConfig(min_free_bytes=0))
    blobs = DirectoryBlobStore(folder / "blobs")
    context = SimpleNamespace(log=log, blobs=blobs, clock=time.time, config=SimpleNamespace(signing=config))
    for number, content in enumerate(contents):
        block, body = header_block.split(content)
        blob = None
        if len(body) > INLINE_LIMIT_BYTES:
            writer = blobs.writer()
            await writer.write(body)
            blob = await writer.commit()
        envelope = Envelope(
            MessageId(f"{number:026d}"),
            "me@example.com",
            (Recipient("you@example.net"),),
            "app",
            "s",
            Lane.BULK,
            received_at=time.time(),
            expires_at=time.time() + 3600,
            size_bytes=3,
        )
        value = encode_message(Message(envelope, block, blob))
        await log.append([Append("accepted.bulk", b"%d" % number, value, None if blob else body)])
    service = SigningService(cast("Context", context))
    reader = await log.consumer([topics.laned(topics.SIGNED, Lane.BULK)], "test")
    await service.start()
    found: dict[int, bytes] = {}
    async with asyncio.timeout(60):
        while len(found) < len(contents):
            for record in await reader.poll(100, 1.0):
                message = decode_message(record.value)
                body = (
                    await blobs.read(message.blob) if message.blob else await record.body.load() if record.body else b""
                )
                found[int(record.key)] = message.header_block + b"\r\n" + body
    await service.drain()
    await reader.close()
    await log.close()
    blobs.close()
    return [found[number] for number in range(len(contents))]


def verdicts(opendkim: str, content: bytes, key_files: dict[str, Path], folder: Path) -> list[str]:
    """opendkim's word on each signature, such as "pass"."""
    keys, configuration, message = folder / "keys", folder / "opendkim.conf", folder / "message"
    lines = [
        f"{dkim_record.name(selector, 'example.com')} {published(file).decode()}"
        for selector, file in key_files.items()
    ]
    keys.write_text("\n".join(lines) + "\n")
    configuration.write_text(
        f"Mode v\nTestPublicKeys {keys}\nSyslog no\nAlwaysAddARHeader yes\nTemporaryDirectory {folder}\n"
    )
    message.write_bytes(content)
    command = [opendkim, "-x", str(configuration), "-vvv", "-t", str(message)]
    out = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    results = [line.split()[0] for line in out.stdout.splitlines() if line.strip().startswith("dkim=")]
    return [result.removeprefix("dkim=").rstrip(";") for result in results]


async def test_opendkim_accepts_every_message_and_both_signatures(
    opendkim: str, key_files: dict[str, Path], tmp_path: Path
) -> None:
    contents = await signed(list(MESSAGES.values()), key_files, tmp_path)
    judged = {
        name: verdicts(opendkim, content, key_files, tmp_path) for name, content in zip(MESSAGES, contents, strict=True)
    }
    assert judged == {name: ["pass", "pass"] for name in MESSAGES}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"hello\r\n", b"hallo\r\n"),
        (b"Subject: hello", b"Subject: other"),
        (FROM, FROM + b"From: evil@example.org\r\n"),
        (FROM, b"Reply-To: evil@example.org\r\n" + FROM),
        (FROM, b"Content-Type: text/html\r\n" + FROM),
    ],
)
async def test_opendkim_refuses_what_was_changed_or_added(
    before: bytes, after: bytes, opendkim: str, key_files: dict[str, Path], tmp_path: Path
) -> None:
    (content,) = await signed([MESSAGES["plain"]], key_files, tmp_path)
    assert verdicts(opendkim, content, key_files, tmp_path) == ["pass", "pass"]
    changed = content.replace(before, after)
    assert changed != content
    assert "pass" not in verdicts(opendkim, changed, key_files, tmp_path)
