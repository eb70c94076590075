"""How mail leaves from a source address: bound on this machine, through a SOCKS5 proxy that has it, or translated by the network.

Owns that part of the configuration and the syntax of a proxy's address. `postrail.core.config` has it in each source,
`postrail.sender.egress` acts on it.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Annotated, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from postrail.core.section import Section

SCHEME = "socks5://"
DEFAULT_PORT = 1080


class Bind(StrEnum):
    DIRECT = "direct"
    """The address is this machine's; each connection is bound to it."""
    SOCKS5 = "socks5"
    """A proxy has the address, and says in its answer which one it bound."""
    GATEWAY = "gateway"
    """The network translates to the address, by rules about the sender's process; nobody can tell the sender whether it does."""


class ProxyAddress(NamedTuple):
    """Where a proxy listens; `host` is an IP address or a name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{SCHEME}[{self.host}]:{self.port}" if ":" in self.host else f"{SCHEME}{self.host}:{self.port}"


def parse_proxy(text: str) -> ProxyAddress:
    """`socks5://192.0.2.1:1080`, `socks5://[2001:db8::1]:1080`, `socks5://egress.example.com`.

    Raises:
        ValueError: none of these.
    """
    rest = text.strip().removeprefix(SCHEME)
    host, separator, port_text = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not separator:
        host, port_text = rest, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host.strip("[]").lower()
    valid = text.strip().startswith(SCHEME) and bool(host) and not set(host) & set("/@[]?# ") and port_text.isdecimal()
    if not valid or bracketed != (":" in host):
        raise ValueError(
            f"{text!r} is not a proxy; write {SCHEME}HOST:PORT, an IPv6 address in brackets, and credentials under proxy_login"
        )
    port = int(port_text)
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: {port} is not a port number")
    if bracketed and not isinstance(ip_address(host), IPv6Address):
        raise ValueError(f"{text!r}: {host} is no IPv6 address")
    return ProxyAddress(host, port)


def _proxy(text: str) -> str:
    return str(parse_proxy(text))


ProxyText = Annotated[str, BeforeValidator(_proxy)]


class ProxyLogin(Section):
    """RFC 1929."""

    username: Annotated[str, Field(min_length=1, max_length=255)]
    password_file: str
    """Holds the password, without its line end."""


class EgressSection(Section):
    """How mail leaves from one address."""

    bind: Bind = Bind.DIRECT
    proxy: ProxyText | None = None
    """`socks5://HOST:PORT` of the proxy that binds this address. With `direct`: for senders on machines without the address."""
    proxy_login: ProxyLogin | None = None

    @model_validator(mode="after")
    def _proxy_where_needed(self) -> Self:
        if self.bind is Bind.SOCKS5 and self.proxy is None:
            raise ValueError(f"bind: socks5 needs proxy ({SCHEME}HOST:PORT): the proxy that binds this address")
        if self.bind is Bind.GATEWAY and (self.proxy is not None or self.proxy_login is not None):
            raise ValueError("proxy and proxy_login are not for bind: gateway")
        if self.proxy is None and self.proxy_login is not None:
            raise ValueError("proxy_login needs proxy: the proxy to sign in to")
        return self
