"""What the checks of addresses and domains ask: the block lists.

Owns that part of the configuration. `postrail.shell.checks` asks, `postrail.core.dnsbl` judges the answers.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated

from pydantic import BeforeValidator, Field

from postrail.core.section import Section


def _zone(text: str) -> str:
    return text.strip().strip(".").lower()


def _codes(text: str) -> str:
    network = IPv4Network(text, strict=False)
    if not network.subnet_of(IPv4Network("127.0.0.0/8")):
        raise ValueError(f"{text} is not within 127.0.0.0/8, where block lists answer")
    return str(network)


class BlockListConfig(Section):
    """A DNS block list (RFC 5782)."""

    zone: Annotated[str, BeforeValidator(_zone), Field(min_length=1, max_length=200)]
    codes: Annotated[tuple[Annotated[str, BeforeValidator(_codes)], ...], Field(min_length=1)] = ("127.0.0.0/8",)
    """Answers that count as a listing; a list of many kinds says there which one."""


class ChecksConfig(Section):
    """What checks of source addresses ask beside our own domains' records."""

    block_lists: tuple[BlockListConfig, ...] = ()
    """None by default: the public ones have terms, and refuse questions that come through large public resolvers."""
