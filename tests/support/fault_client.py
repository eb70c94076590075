"""The client of the fault tests: one SMTP connection that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import base64
import ssl
from contextlib import suppress

from tests.support.fault_configuration import PASSWORD, USER
from tests.support.ingress import client_context

ANSWER_SECONDS = 30.0


class Client:
    """Made by `FaultWorld.connect`, which closes those that are still open at its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: set[Client]) -> None:
        self.reader = reader
        self.writer = writer
        self._open = open_
        open_.add(self)

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> str:
        """One reply; the lines of a longer one are joined by line feeds, and the end of the connection is ""."""
        lines: list[str] = []
        async with asyncio.timeout(ANSWER_SECONDS):
            while line := (await self.reader.readline()).decode().rstrip():
                lines.append(line)
                if line[3:4] != "-":
                    break
        return "\n".join(lines)

    async def say(self, line: str) -> str:
        """A command and its reply."""
        await self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def rest(self) -> str:
        """Everything until the server closes."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await self.reader.read(-1)).decode()

    async def start_tls(self) -> None:
        """STARTTLS, the handshake, EHLO."""
        assert (await self.say("STARTTLS")).startswith("220")
        async with asyncio.timeout(ANSWER_SECONDS):
            await self.writer.start_tls(client_context())
        await self.say("EHLO client.test")

    async def log_in(self, password: str = PASSWORD, user: str = USER) -> str:
        """AUTH PLAIN; the reply."""
        return await self.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())

    async def close(self) -> None:
        """End the connection, whatever state it is in."""
        self._open.discard(self)
        self.writer.transport.abort()
        with suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()
