"""Opens connections from the intended source address, or not at all: bound here, or through a proxy that has the address.

Owns sockets up to the moment they are connected. A source address that this machine does not have, or that the kernel or the
proxy did not use, raises SourceMismatch: such mail must wait, not leave from elsewhere (promise 6). What is said to a proxy is
in `postrail.core.socks5`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from postrail.core.config import PoolConfig, SourceConfig
from postrail.core.egress_config import ProxyAddress, parse_proxy
from postrail.core.socks5 import MAX_CREDENTIAL_BYTES, Credentials, Handshake, ProxyError, TargetRefused
from postrail.sender.wire import Wire
from postrail.shell.configuration import ConfigurationError

_IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the port is chosen at connect, so that one address can hold many connections
_UNIX = "unix:"


class ConnectFailed(Exception):
    """The target could not be reached; the message says why."""


class ProxyFailed(Exception):
    """The proxy of the source address does not work, so that no target can be reached; the message says why."""


class SourceMismatch(Exception):
    """The connection cannot leave from the source address, or did not."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The SOCKS5 proxy that binds a source address."""

    address: ProxyAddress
    credentials: Credentials | None = None


def proxies(pools: Iterable[PoolConfig]) -> dict[str, Proxy]:
    """The proxies of these pools by source address.

    Raises:
        ConfigurationError: a password file cannot be read, or holds no password.
    """
    sources = [source for pool in pools for source in pool.sources]
    return {
        source.address: Proxy(parse_proxy(source.proxy), _credentials(source))
        for source in sources
        if source.proxy is not None
    }


async def connect(
    source: str, target: str, port: int, wire: Wire, timeout_seconds: float, proxy: Proxy | None = None
) -> None:
    """Connect the wire.

    Args:
        source: the IP address to leave from; "" lets the kernel choose.
        target: an IP address of the same family, or `unix:PATH`.
        proxy: what has the source address; None: this machine.

    Raises:
        ConnectFailed: refused, unreachable, too slow.
        ProxyFailed: the proxy is to blame; other targets would fare no better.
        SourceMismatch: see above; nothing was said to the server.
    """
    loop = asyncio.get_running_loop()
    try:
        if target.startswith(_UNIX):
            async with asyncio.timeout(timeout_seconds):
                await loop.create_unix_connection(lambda: wire, target.removeprefix(_UNIX))
            return
        if proxy is not None:
            connection = await _connect_through(proxy, source, target, port, timeout_seconds)
        else:
            connection = await _connect_from(source, target, port, timeout_seconds)
    except (OSError, TimeoutError) as error:
        raise ConnectFailed(_reason(error)) from error
    try:
        await loop.create_connection(lambda: wire, sock=connection)
    except OSError as error:
        connection.close()
        raise ConnectFailed(_reason(error)) from error
    except BaseException:
        connection.close()
        raise


def same_family(source: str, address: str) -> bool:
    """Whether mail can leave from `source` ("" for any) to `address`."""
    return not source or (":" in source) == (":" in address)


async def _connect_from(source: str, target: str, port: int, timeout_seconds: float) -> socket.socket:
    """A socket of this machine's; OSError, TimeoutError or SourceMismatch."""
    connection = _socket(source, target)
    try:
        async with asyncio.timeout(timeout_seconds):
            await asyncio.get_running_loop().sock_connect(connection, (target, port))
        used = connection.getsockname()[0]
        if source and ip_address(used.partition("%")[0]) != ip_address(source):
            raise SourceMismatch(f"the connection would leave from {used} instead of {source}")
    except OSError as error:
        connection.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise SourceMismatch(f"the source address {source} is not usable: {error.strerror}") from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect_through(proxy: Proxy, source: str, target: str, port: int, timeout_seconds: float) -> socket.socket:
    """A socket to the proxy, behind which the target answers; ConnectFailed, ProxyFailed or SourceMismatch."""
    handshake = Handshake(target, port, proxy.credentials)
    connection: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await _dial_proxy(proxy.address)
            await _negotiate(connection, handshake)
        _verify(handshake, source, proxy)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, TargetRefused):
            raise ConnectFailed(f"the proxy {proxy.address} answered: {error}") from error
        if isinstance(error, TimeoutError) and handshake.asked:
            raise ConnectFailed(f"the connection through {proxy.address} timed out") from error
        if isinstance(error, OSError | TimeoutError | ProxyError):
            raise ProxyFailed(f"the proxy {proxy.address} of {source} does not work: {_reason(error)}") from error
        raise
    return connection


async def _dial_proxy(address: ProxyAddress) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = found[0]
    connection = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection


async def _negotiate(connection: socket.socket, handshake: Handshake) -> None:
    loop = asyncio.get_running_loop()
    while handshake.bound is None:
        output = handshake.take_output()
        if output:
            await loop.sock_sendall(connection, output)
        handshake.receive(await loop.sock_recv(connection, handshake.wanted_bytes))


def _verify(handshake: Handshake, source: str, proxy: Proxy) -> None:
    bound = handshake.bound
    assert bound is not None
    if bound.address is None or bound.address != ip_address(source):
        said = f"the proxy {proxy.address} says that the connection would leave from {bound}"
        if bound.address is not None and bound.address.is_unspecified:
            said = f"the proxy {proxy.address} does not say from which address the connection would leave"
        raise SourceMismatch(f"{said} instead of {source}")


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


def _credentials(source: SourceConfig) -> Credentials | None:
    login = source.proxy_login
    if login is None:
        return None
    where = f"proxy_login.password_file of the source {source.address}"
    try:
        password = Path(login.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{where}: {login.password_file} cannot be read: {error}") from error
    if not 0 < len(password.encode()) <= MAX_CREDENTIAL_BYTES:
        raise ConfigurationError(f"{where}: {login.password_file} must hold 1 to {MAX_CREDENTIAL_BYTES} bytes")
    return Credentials(login.username, password)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    if isinstance(error, socket.gaierror):
        return f"its name has no address: {error.strerror}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
