"""Checks of a sending domain against the DNS: DKIM key, SPF, DMARC.

Owns the asking: each check lets a judgement of `postrail.core.domain_checks` ask the resolver. Never raises for what the DNS
does; what cannot be told is UNKNOWN. Neighbour: `address`.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from postrail.core import domain_checks
from postrail.core.address import ascii_domain
from postrail.core.checks import CheckResult
from postrail.core.dkim_record import PublicKey
from postrail.shell.dns import Resolver


async def dkim(resolver: Resolver, domain: str, selector: str, key: PublicKey) -> CheckResult:
    """Whether the DNS publishes the public half of the key that we sign with.

    Raises:
        BadAddress: the domain is none; so for the other checks.
    """
    return await resolver.decide(domain_checks.check_dkim(ascii_domain(domain), selector.lower(), key))


async def spf(resolver: Resolver, domain: str, address: str, ehlo: str) -> CheckResult:
    """Whether the record of a return path's domain allows an IP address that says `ehlo`."""
    asking = domain_checks.check_spf(ascii_domain(domain), ip_address(address), ascii_domain(ehlo))
    return await resolver.decide(asking)


async def dmarc(
    resolver: Resolver, domain: str, return_path_domain: str, signing_domains: Sequence[str]
) -> CheckResult:
    """Whether a policy applies to the domain of From, and mail with that return path ("": not ours) or signature satisfies it."""
    return_path = ascii_domain(return_path_domain) if return_path_domain else ""
    signers = [ascii_domain(signer) for signer in signing_domains]
    return await resolver.decide(domain_checks.check_dmarc(ascii_domain(domain), return_path, signers))
