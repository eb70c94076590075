"""Receivers that stop in the middle of a transaction: one for good, one until it is told to go on.

Each owns one listening socket and just enough of the dialogue to get there. The demonstration's receivers, which take whole
messages, listen on the same address before and after.
"""

from __future__ import annotations

import asyncio

_REPLIES = {b"EHLO": b"250-stops\r\n250 PIPELINING\r\n", b"DATA": b"354 Go ahead\r\n", b"QUIT": b"221 Bye\r\n"}


class StoppingPeer:
    """Reads `content_bytes` of the content, sets `reached`, and reads no more."""

    def __init__(self, address: str, port: int, content_bytes: int) -> None:
        self.reached = asyncio.Event()
        self._address = address
        self._port = port
        self._content_bytes = content_bytes
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._address, self._port, limit=4096)

    async def stop(self) -> None:
        """Close the socket and all connections."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.write(b"220 stops ESMTP\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                writer.write(_REPLIES.get(verb, b"250 OK\r\n"))
                if verb == b"DATA":
                    await reader.readexactly(self._content_bytes)
                    self.reached.set()
                    await asyncio.Event().wait()
        except (OSError, EOFError):
            writer.close()


class HeldPeer:
    """Stops at DATA until `release`: before it asks for the content, or (`asks`) after, then without reading it.

    Attributes:
        held: how many sessions stand at DATA.
        ended: how many sessions have ended since.
        taken: the contents whose final dot came.
    """

    def __init__(self, address: str, port: int, *, asks: bool) -> None:
        self.held = 0
        self.ended = 0
        self.taken: list[bytes] = []
        self._address, self._port, self._asks = address, port, asks
        self._released = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._address, self._port, limit=4096)

    def listen_no_more(self) -> None:
        """Take no more sessions; those that are there stay."""
        assert self._server is not None
        self._server.close()

    def release(self) -> None:
        """Go on with the sessions that are held."""
        self._released.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 holds ESMTP\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.held += 1
                    await self._content(reader, writer)
                else:
                    writer.write(_REPLIES.get(verb, b"250 OK\r\n"))
        except (OSError, EOFError):
            pass
        finally:
            self.ended += 1
            writer.close()

    async def _content(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._asks:
            writer.write(_REPLIES[b"DATA"])
        await self._released.wait()
        if not self._asks:
            writer.write(_REPLIES[b"DATA"])
        lines: list[bytes] = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise EOFError
            lines.append(line)
        self.taken.append(b"".join(lines))
        writer.write(b"250 OK\r\n")
