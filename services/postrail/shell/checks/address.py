"""Checks of a source address: its name and block lists in the DNS, and whether this machine can bind it.

Owns the asking: each check lets a judgement of `postrail.core.address_checks` ask the resolver, or tries the socket. Never raises
for what the DNS or the machine does; what cannot be told is UNKNOWN. Neighbour: `domain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

from postrail.core import address_checks
from postrail.core.address import ascii_domain
from postrail.core.checks import CheckResult
from postrail.core.checks_config import BlockListConfig
from postrail.shell.configuration import can_bind
from postrail.shell.dns import Resolver


async def ptr(resolver: Resolver, address: str, ehlo: str) -> CheckResult:
    """Whether the address has the name `ehlo`, and the name has the address.

    Raises:
        BadAddress: `ehlo` is no host name.
    """
    return await resolver.decide(address_checks.check_ptr(ip_address(address), ascii_domain(ehlo)))


async def listed(resolver: Resolver, address: str, block_lists: Sequence[BlockListConfig]) -> CheckResult:
    """Whether any of the lists has the address; all are asked at the same time."""
    ip = ip_address(address)
    answers = await asyncio.gather(*(resolver.decide(address_checks.ask_list(ip, one)) for one in block_lists))
    return address_checks.judge_lists(ip, answers)


def bound(address: str) -> CheckResult:
    """Whether this machine can bind the address (it cannot be told where net.ipv4.ip_nonlocal_bind allows every one)."""
    return address_checks.judge_bound(ip_address(address), can_bind(address))
