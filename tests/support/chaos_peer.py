"""A receiver that stops reading in the middle of a message's content.

Owns one listening socket and just enough of the dialogue to get there. The demonstration's receivers, which take whole
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
