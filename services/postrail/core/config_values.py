"""The kinds of values that sections of the configuration share: addresses, networks, domains, names, counts, ports.

Durations and sizes are in `units`.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field

from postrail.core.nameservers import parse_nameserver


def _address(text: str) -> str:
    return str(ip_address(text))


def _network(text: str) -> str:
    return str(ip_network(text, strict=False))


def _domain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _nameserver(text: str) -> str:
    return str(parse_nameserver(text))


IPAddress = Annotated[
    str, BeforeValidator(_address), Field(json_schema_extra={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
]
IPNetwork = Annotated[str, BeforeValidator(_network)]
NameserverText = Annotated[str, BeforeValidator(_nameserver)]
Domain = Annotated[str, BeforeValidator(_domain), Field(min_length=1, max_length=255)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
