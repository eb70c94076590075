"""Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.

`/livez` answers 200 while the event loop turns; `/readyz` 200 only while no service names a problem, otherwise 503 with
one problem a line; `/metrics` the Prometheus text format. Speaks just enough HTTP/1.1 for probes and scrapers, and serves
nothing else; it is not for the open network.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

REQUEST_LIMIT_BYTES = 8192
REQUEST_SECONDS = 10.0

Problems = Callable[[], Sequence[str]]


class HealthServer:
    """Serves the three paths on one port."""

    def __init__(self, address: str, port: int, problems: Problems) -> None:
        self._address = address
        self._port = port
        self._problems = problems
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is bound; differs from the configured one where that is 0."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and serve.

        Raises:
            OSError: the port cannot be bound; the text says which and what to do.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, self._address, self._port, limit=REQUEST_LIMIT_BYTES, reuse_port=False
            )
        except OSError as error:
            raise OSError(
                f"health: cannot listen on {self._address} port {self._port}: {error.strerror}; "
                "set health.port to a free one, or to 0"
            ) from error

    async def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"only GET and HEAD\n", method)
        if path == b"/livez":
            return _response("200 OK", "text/plain", b"ok\n", method)
        if path == b"/readyz":
            problems = self._problems()
            if problems:
                text = "".join(f"{problem}\n" for problem in problems).encode()
                return _response("503 Service Unavailable", "text/plain; charset=utf-8", text, method)
            return _response("200 OK", "text/plain", b"ok\n", method)
        if path == b"/metrics":
            return _response("200 OK", CONTENT_TYPE_LATEST, generate_latest(REGISTRY), method)
        return _response("404 Not Found", "text/plain", b"/livez, /readyz and /metrics are served here\n", method)


def _response(status: str, content_type: str, body: bytes, method: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
