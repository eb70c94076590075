"""One SMTP session of a chaos test's client, in which every step is known, so that a lost connection can be placed.

Owns the dialogue up to the reply that decides. What is sent, how fast, and what is told to the ledger is `chaos_injector`'s and
`chaos_source`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self


class Session:
    """One connection. `phase` says where it stands. Subclasses say who they are, how patient, and how content goes out."""

    NAME = "client.shop.example"
    REPLY_TIMEOUT_SECONDS = 30.0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.phase = "command"

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect and greet. Raises OSError or EOFError where that is refused or lost."""
        session = cls(*await asyncio.open_connection("127.0.0.1", port))
        try:
            await session._expect("220")
            session._writer.write(f"EHLO {cls.NAME}\r\n".encode())
            await session._expect("250")
        except BaseException:
            session.close()
            raise
        return session

    async def submit(self, sender: str, recipients: Sequence[str], content: bytes) -> str:
        """Submit; returns the reply that decided."""
        self.phase = "command"
        commands = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in recipients), "DATA"]
        self._writer.write("".join(f"{command}\r\n" for command in commands).encode())
        replies = [await self._reply() for _ in commands]
        refused = next((reply for reply in replies if reply[0] not in "23"), None)
        if refused is not None:
            if replies[-1].startswith("354"):
                raise ConnectionError("354 after a refusal")  # hang up: this message is not to be sent
            return refused
        self.phase = "content"
        await self._content(content)
        self.phase = "dot"
        self._writer.write(b".\r\n")
        reply = await self._reply()
        self.phase = "command"
        return reply

    async def _content(self, content: bytes) -> None:
        """Send the content, which is stuffed already or has no line that begins with a dot."""
        self._writer.write(content)
        await self._writer.drain()

    async def _expect(self, code: str) -> None:
        reply = await self._reply()
        if not reply.startswith(code):
            raise ConnectionError(reply)

    async def _reply(self) -> str:
        try:
            async with asyncio.timeout(self.REPLY_TIMEOUT_SECONDS):
                while True:
                    line = (await self._reader.readuntil(b"\r\n")).decode().rstrip()
                    if line[3:4] != "-":
                        return line
        except TimeoutError:
            raise AssertionError(f"no reply within {self.REPLY_TIMEOUT_SECONDS:g} s in {self.phase}") from None

    def close(self) -> None:
        """Drop the connection."""
        self._writer.close()
