"""Opens connections from the intended source address, or not at all: bound here, or through a proxy that has the address.

Owns sockets up to the moment they are connected. A source address that this machine does not have, or that the kernel or the
proxy did not use, raises SourceMismatch: such mail must wait, not leave from elsewhere (promise 6). Only where the network
translates (`Bind.GATEWAY`) nothing can be verified. What is said to a proxy is in `postrail.core.socks5`; what is known of each
address is in `postrail.sender.sources`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from postrail.core.config import PoolConfig, SourceConfig
from postrail.core.egress_config import Bind, ProxyAddress, parse_proxy
from postrail.core.socks5 import MAX_CREDENTIAL_BYTES, Credentials, Handshake, ProxyError, TargetRefused
from postrail.sender.wire import Wire
from postrail.shell.configuration import ConfigurationError

_IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the port is chosen at connect, so that one address can hold many connections
_UNIX = "unix:"


class ConnectFailed(Exception):
    """The target could not be reached; the message says why."""


class ProxyFailed(Exception):
    """The proxy of the source address does not work, so that no target can be reached; the message says why."""


class Problem(StrEnum):
    """What can be wrong with a source address."""

    UNBOUND = "unbound"
    """This machine does not have it."""
    PROXY = "proxy"
    """Its proxy does not answer, or refuses."""
    MISMATCH = "mismatch"
    """A connection would have left from another one, or nobody said from which."""


class SourceMismatch(Exception):
    """The connection cannot leave from the source address, or did not."""

    def __init__(self, text: str, problem: Problem = Problem.MISMATCH) -> None:
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Proxy:
    """The SOCKS5 proxy that binds a source address."""

    address: ProxyAddress
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How mail leaves from one source address.

    Attributes:
        source: IP address; "" where the kernel chooses.
        proxy: what has the address; with `Bind.DIRECT` it is asked where this machine does not have it.
    """

    source: str
    bind: Bind = Bind.DIRECT
    proxy: Proxy | None = None


def ways(pools: Iterable[PoolConfig]) -> dict[str, Way]:
    """How mail leaves from the sources of these pools, by address.

    Raises:
        ConfigurationError: a password file cannot be read, or holds no password.
    """
    return {source.address: _way(source) for pool in pools for source in pool.sources}


def _way(source: SourceConfig) -> Way:
    if source.proxy is None:
        return Way(source.address, source.bind)
    return Way(source.address, source.bind, Proxy(parse_proxy(source.proxy), _credentials(source)))


async def connect(way: Way, target: str, port: int, wire: Wire, timeout_seconds: float) -> None:
    """Connect the wire.

    Args:
        target: an IP address of the source's family, or `unix:PATH`.

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
        connection = await _connection(way, target, port, timeout_seconds)
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


async def answers(proxy: Proxy, timeout_seconds: float) -> bool:
    """Whether somebody listens at a proxy's address."""
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await _dial_proxy(proxy.address)
    except (OSError, TimeoutError):
        return False
    connection.close()
    return True


def same_family(source: str, address: str) -> bool:
    """Whether mail can leave from `source` ("" for any) to `address`."""
    return not source or (":" in source) == (":" in address)


async def _connection(way: Way, target: str, port: int, timeout_seconds: float) -> socket.socket:
    """A connected socket; OSError, TimeoutError, or what `connect` raises."""
    if way.bind is Bind.GATEWAY:
        return await _connect_from("", target, port, timeout_seconds)
    if way.proxy is None:
        return await _connect_from(way.source, target, port, timeout_seconds)
    if way.bind is Bind.DIRECT:
        try:
            return await _connect_from(way.source, target, port, timeout_seconds)
        except SourceMismatch as error:
            if error.problem is not Problem.UNBOUND:
                raise
    return await _connect_through(way.proxy, way.source, target, port, timeout_seconds)


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
            text = f"the source address {source} is not usable: {error.strerror}"
            raise SourceMismatch(text, Problem.UNBOUND) from error
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
            text = f"this machine does not have the source address {source}"
            raise SourceMismatch(text, Problem.UNBOUND) from error
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
