"""How name servers are written in the configuration.

Owns that syntax. `postrail.core.config_values` checks with it, `postrail.shell.dns_query` asks the servers.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

DEFAULT_PORT = 53


class Nameserver(NamedTuple):
    """Where a resolver listens."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_nameserver(text: str) -> Nameserver:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.

    Raises:
        ValueError: neither of these.
    """
    host, port_text = text.strip(), ""
    if host.startswith("["):
        host, closed, port_text = host[1:].partition("]")
        port_text = port_text.removeprefix(":") if closed else "?"
    elif host.count(":") == 1:
        host, _, port_text = host.partition(":")
    try:
        address = str(ip_address(host))
        port = int(port_text) if port_text else DEFAULT_PORT
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not a name server; write its IP address, with a port as 192.0.2.1:53 or [2001:db8::1]:53"
        ) from error
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: {port} is not a port number")
    return Nameserver(address, port)
