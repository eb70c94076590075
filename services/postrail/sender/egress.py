"""Opens connections from the intended source address, or not at all.

Owns sockets up to the moment they are connected. A source address that this machine does not have, or that the kernel did not
use, raises SourceMismatch: such mail must wait, not leave from elsewhere (promise 6).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from ipaddress import ip_address

from postrail.sender.wire import Wire

_IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the port is chosen at connect, so that one address can hold many connections
_UNIX = "unix:"


class ConnectFailed(Exception):
    """The target could not be reached; the message says why."""


class SourceMismatch(Exception):
    """The connection cannot leave from the source address, or did not."""


async def connect(source: str, target: str, port: int, wire: Wire, timeout_seconds: float) -> None:
    """Connect the wire.

    Args:
        source: the IP address to leave from; "" lets the kernel choose.
        target: an IP address of the same family, or `unix:PATH`.

    Raises:
        ConnectFailed: refused, unreachable, too slow.
        SourceMismatch: see above; nothing was said to the server.
    """
    loop = asyncio.get_running_loop()
    try:
        if target.startswith(_UNIX):
            async with asyncio.timeout(timeout_seconds):
                await loop.create_unix_connection(lambda: wire, target.removeprefix(_UNIX))
            return
        connection = _socket(source, target)
    except OSError as error:
        raise ConnectFailed(_reason(error)) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            await loop.sock_connect(connection, (target, port))
        used = connection.getsockname()[0]
        if source and ip_address(used.partition("%")[0]) != ip_address(source):
            raise SourceMismatch(f"the connection would leave from {used} instead of {source}")
        await loop.create_connection(lambda: wire, sock=connection)
    except (OSError, TimeoutError) as error:
        connection.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise SourceMismatch(f"the source address {source} is not usable: {error.strerror}") from error
        raise ConnectFailed(_reason(error)) from error
    except BaseException:
        connection.close()
        raise


def same_family(source: str, address: str) -> bool:
    """Whether mail can leave from `source` ("" for any) to `address`."""
    return not source or (":" in source) == (":" in address)


def _socket(source: str, target: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            if hasattr(socket, "SO_BINDTODEVICE"):  # Linux
                connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((source, 0))
    except OSError as error:
        connection.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise SourceMismatch(f"this machine does not have the source address {source}") from error
        raise
    return connection


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
