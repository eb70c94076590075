"""An SMTP or LMTP server that misbehaves as a test tells it.

Owns a plain dialogue that accepts everything, and the places where a test changes it: `replies` by verb (`banner`, `ehlo`,
`mail`, `rcpt`, `data`, `dot`, `quit`, `starttls`, `rset`), each a list that is used up call by call, its last entry for ever.
An entry is a reply; or `close` (end the connection), `silence` (never answer), `delay` (the usual answer once `release` is set).
Everything received is recorded.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

DEFAULTS = {
    "banner": "220 scripted",
    "ehlo": "250-scripted\r\n250-PIPELINING\r\n250 8BITMIME",
    "helo": "250 scripted",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go",
    "dot": "250 2.0.0 taken",
    "rset": "250 ok",
    "quit": "221 bye",
    "starttls": "220 go",
}


@dataclass
class Taken:
    """A message that was answered with 2xx after the dot (or any answer, where LMTP)."""

    mail: str
    recipients: list[str]
    content: bytes
    secured: bool
    at: float
    """When it was answered, on the monotonic clock."""


@dataclass
class Session:
    """One connection."""

    peer: tuple[str, int]
    lines: list[str] = field(default_factory=list)
    secured: bool = False
    ended_by_client: bool = False


class _End(Exception):
    """The script ends the connection."""


class ScriptedServer:
    def __init__(self, replies: dict[str, list[str]], tls: ssl.SSLContext | None, *, lmtp: bool) -> None:
        self.replies = {verb: list(script) for verb, script in replies.items()}
        self.sessions: list[Session] = []
        self.taken: list[Taken] = []
        self.port = 0
        self.open = 0
        self.most_open = 0
        self.drop_content_after: int | None = None
        self.read_content_late = False
        self.release = asyncio.Event()
        self.waiting = 0
        self._tls = tls
        self._lmtp = lmtp

    @property
    def messages(self) -> int:
        return len(self.taken)

    def _next(self, verb: str) -> str:
        script = self.replies.get(verb)
        if not script:
            return DEFAULTS.get(verb, "500 what")
        return script.pop(0) if len(script) > 1 else script[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername") or ("unix", 0)
        session = Session((peer[0], peer[1]) if isinstance(peer, tuple) else ("unix", 0))
        self.sessions.append(session)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(_End, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._dialogue(session, reader, writer)
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _answer(self, verb: str, writer: asyncio.StreamWriter) -> int:
        reply = self._next(verb)
        if reply == "close":
            raise _End
        if reply == "silence":
            self.waiting += 1
            await asyncio.sleep(3600)
        if reply == "delay":
            self.waiting += 1
            await self.release.wait()
            reply = DEFAULTS[verb]
        writer.write(reply.encode("latin-1") + b"\r\n")
        await writer.drain()
        if reply.startswith("421"):
            raise _End
        return int(reply[:3]) if reply[:3].isdigit() else 0

    async def _dialogue(self, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail, recipients = "", list[str]()
        await self._answer("banner", writer)
        while True:
            line = (await reader.readuntil(b"\r\n")).decode("utf-8").removesuffix("\r\n")
            session.lines.append(line)
            verb = line.split(" ")[0].split(":")[0].lower().replace("lhlo", "ehlo")
            if verb == "data" and not recipients:
                self.replies.setdefault("data", ["503 no recipients" if verb not in self.replies else "354 go"])
            code = await self._answer(verb, writer)
            if verb == "mail" and code == 250:
                mail, recipients = line, []
            elif verb == "rcpt" and code == 250:
                recipients.append(line)
            elif verb == "data" and code == 354:
                content = await self._content(reader)
                if not recipients and not self._lmtp:
                    await self._answer("dot", writer)
                for _ in range(len(recipients) if self._lmtp else min(1, len(recipients))):
                    code = await self._answer("dot", writer)
                    if code < 300:
                        self.taken.append(Taken(mail, list(recipients), content, session.secured, time.monotonic()))
            elif verb == "starttls" and code == 220 and self._tls is not None:
                await writer.start_tls(self._tls)
                session.secured = True
            elif verb == "quit":
                session.ended_by_client = True
                raise _End

    async def _content(self, reader: asyncio.StreamReader) -> bytes:
        lines: list[bytes] = []
        size_bytes = 0
        if self.read_content_late:
            self.waiting += 1
            await self.release.wait()
        while (line := await reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
            size_bytes += len(line)
            if self.drop_content_after is not None and size_bytes >= self.drop_content_after:
                raise _End
        return b"".join(lines)


@asynccontextmanager
async def scripted(
    script: Mapping[str, list[str]] | None = None,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    lmtp: bool = False,
    unix: str = "",
    **replies: list[str],
) -> AsyncIterator[ScriptedServer]:
    """A server on a free port of `address`, or on a Unix socket. `script` and `replies` say the same."""
    server = ScriptedServer({**(script or {}), **replies}, tls, lmtp=lmtp)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await server.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    if unix:
        listener = await asyncio.start_unix_server(serve, unix, limit=1 << 22)
    else:
        listener = await asyncio.start_server(serve, address, port, limit=1 << 22)
        server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
