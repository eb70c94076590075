"""TLS on a submission connection, from the first byte or after STARTTLS.

Owns the handshake and its end. Which certificate is `shell.tls_server`'s, when TLS is asked for is `session`'s.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from postrail.ingress.connection import CLOSE_SECONDS, NEVER, Connection, ConnectionEnded

HANDSHAKE_SECONDS: Final = 20.0


class EncryptedConnection(Connection):
    """A connection that can take up TLS."""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Take up TLS on this connection. What came so far is the client's part of the handshake: discard the rest before.

        Raises:
            ConnectionEnded: the handshake failed; the connection is closed.
        """
        self.require_client()
        self.deadline = self.loop.time() + HANDSHAKE_SECONDS + CLOSE_SECONDS
        self.in_handshake = True
        try:
            handshake = self.loop.create_task(
                self.loop.start_tls(
                    self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
                )
            )
            await asyncio.sleep(0)  # now TLS has the transport, and nothing more comes here
            if self.has_input:
                self.loop.call_soon(self._pass_on, self.take_input())
            # asyncio never ends the wait for a handshake on a transport that is lost already: hence a limit of our own.
            async with asyncio.timeout(HANDSHAKE_SECONDS + CLOSE_SECONDS):
                transport = await handshake
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            self._give_up()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ConnectionEnded from error
        finally:
            self.in_handshake = False
        self.deadline = NEVER
        if transport is None or self.is_ended or self.transport.is_closing():
            self._give_up()
            raise ConnectionEnded
        self.transport = transport
        self.is_tls = True

    def _pass_on(self, data: bytes) -> None:
        """Give TLS what came before it had the transport: uvloop reads as soon as a connection is made."""
        receiver: Any = self.transport.get_protocol()
        receiver.get_buffer(len(data))[: len(data)] = data
        receiver.buffer_updated(len(data))

    def _give_up(self) -> None:
        """After a handshake that failed: nobody else tells this protocol that its connection is lost."""
        self.transport.abort()
        self.connection_lost(None)

    def tls_description(self) -> str:
        """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or "" in the clear."""
        cipher = self.transport.get_extra_info("cipher")
        return f"{cipher[1]} {cipher[0]}" if cipher else ""
