"""A submitter: hands messages in over SMTP with STARTTLS and AUTH, several sessions at a time.

Owns the client's side of submission and tells the ledger what got a 250. A message that was sent to its final dot without
an answer is never submitted again: that is what the ledger must be able to rely on.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from postrail.demo.ledger import Entry, Ledger
from postrail.demo.mailing import Letter

REPLY_TIMEOUT_SECONDS = 60.0
PAUSE_SECONDS = 0.3
MAX_PAUSES = 200


class Refused(Exception):
    """The server refused: `code` 4yz (later) or 5yz (never)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


@dataclass(slots=True)
class Submitter:
    """Submits letters to one listener.

    Attributes:
        message_ids: the id from each 250, by what it was given for.
        refused: letters that were refused for good, with the reply.
        unanswered: letters whose final dot was not answered.
    """

    address: str
    port: int
    user: str
    password: str
    ledger: Ledger
    message_ids: dict[str, Entry] = field(default_factory=dict)
    refused: list[tuple[Letter, str]] = field(default_factory=list)
    unanswered: list[Letter] = field(default_factory=list)
    _pauses: int = 0

    async def run(self, letters: Iterator[Letter], sessions: int) -> None:
        """Submit all of them; returns when each was accepted, refused for good, or left unanswered."""
        async with asyncio.TaskGroup() as group:
            for _ in range(sessions):
                group.create_task(self._work(letters))

    async def _work(self, letters: Iterator[Letter]) -> None:
        session: _Session | None = None
        try:
            for letter in letters:
                session = await self._submit(letter, session)
        finally:
            if session is not None:
                await session.close()

    async def _submit(self, letter: Letter, session: _Session | None) -> _Session | None:
        """One letter, with pauses while the server says later; returns the session if it can be used again."""
        self.ledger.offered(letter.ledger_id, letter.body_sha256)
        while True:
            try:
                if session is None:
                    session = await _Session.open(self.address, self.port, self.user, self.password)
                answer = await session.send(letter)
            except Refused as refusal:
                if refusal.code >= 500:
                    self.refused.append((letter, str(refusal)))
                    return session
                if refusal.code == 421 and session is not None:
                    await session.close()
                    session = None
            except (OSError, EOFError, asyncio.IncompleteReadError):
                if session is not None:
                    await session.close()
                    if session.dotted:
                        self.unanswered.append(letter)
                        return None
                session = None
            else:
                self.ledger.submitted(letter.ledger_id, letter.recipient, letter.body_sha256)
                self.message_ids[answer.rsplit(" ", 1)[-1]] = Entry(letter.ledger_id, letter.recipient)
                return session
            await self._pause(letter)

    async def _pause(self, letter: Letter) -> None:
        self._pauses += 1
        if self._pauses > MAX_PAUSES:
            raise ConnectionError(
                f"the submission listener {self.address} port {self.port} kept refusing or went away at {letter.ledger_id}"
            )
        await asyncio.sleep(PAUSE_SECONDS)


class _Session:
    """One authenticated connection. `dotted`: the final dot was sent and its answer has not come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.dotted = False

    @classmethod
    async def open(cls, address: str, port: int, user: str, password: str) -> _Session:
        session = cls(*await asyncio.open_connection(address, port))
        try:
            await session._authenticate(user, password)
        except BaseException:
            await session.close()
            raise
        return session

    async def _authenticate(self, user: str, password: str) -> None:
        await self._expect(220)
        await self._command("EHLO client.shop.example", 250)
        await self._command("STARTTLS", 220)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the demonstration's certificate is self-signed
        async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
            await self._writer.start_tls(context)
        await self._command("EHLO client.shop.example", 250)
        token = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        await self._command(f"AUTH PLAIN {token}", 235)

    async def send(self, letter: Letter) -> str:
        """Submit one letter; returns the text of its 250."""
        eight_bit = "" if letter.content.isascii() else " BODY=8BITMIME"
        self._writer.write(
            f"MAIL FROM:<{letter.sender}> SIZE={len(letter.content)}{eight_bit}\r\n"
            f"RCPT TO:<{letter.recipient}>\r\nDATA\r\n".encode()
        )
        replies = [await self._reply() for _ in range(3)]
        for code, text in replies[:2]:
            if code != 250:
                if replies[2][0] == 354:
                    raise ConnectionError("the server wants content without a recipient")
                await self._command("RSET", 250)
                raise Refused(code, text)
        if replies[2][0] != 354:
            raise Refused(*replies[2])
        stuffed = letter.content.replace(b"\r\n.", b"\r\n..")
        self._writer.write((b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n")
        self.dotted = True
        await self._writer.drain()
        code, text = await self._reply()
        self.dotted = False
        if code != 250:
            raise Refused(code, text)
        return text

    async def _command(self, line: str, wanted: int) -> None:
        self._writer.write(line.encode() + b"\r\n")
        await self._expect(wanted)

    async def _expect(self, wanted: int) -> None:
        code, text = await self._reply()
        if code != wanted:
            raise Refused(code, text)

    async def _reply(self) -> tuple[int, str]:
        async with asyncio.timeout(REPLY_TIMEOUT_SECONDS):
            while True:
                line = (await self._reader.readuntil(b"\r\n")).decode("utf-8", "replace").rstrip()
                if line[3:4] != "-":
                    return int(line[:3]), line[4:]

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(2):
                await self._writer.wait_closed()
        except (OSError, TimeoutError, ssl.SSLError):
            pass
