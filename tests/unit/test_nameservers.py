"""How name servers are written in the configuration."""

import pytest

from postrail.core.nameservers import Nameserver, parse_nameserver
from postrail.core.routing_config import DnsConfig


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        (" 192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_address_with_and_without_port(text: str, address: str, port: int) -> None:
    assert parse_nameserver(text) == Nameserver(address, port)


@pytest.mark.parametrize("text", ["dns.example.com", "", "192.0.2.1:dns", "192.0.2.1:0", "192.0.2.1:70000", "[::1"])
def test_anything_else_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"name server|port number"):
        parse_nameserver(text)


def test_port_stands_apart_from_an_ipv6_address() -> None:
    assert str(Nameserver("2001:db8::1", 53)) == "[2001:db8::1]:53"


def test_configuration_refuses_a_name() -> None:
    with pytest.raises(ValueError, match="is not a name server; write its IP address"):
        DnsConfig(nameservers=("dns.example.com",))
