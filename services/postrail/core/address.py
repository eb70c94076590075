"""Mail addresses and domains.

Owns the syntax of paths in MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531), and the A-label form of domains (IDNA 2008, UTS 46).
"""

from __future__ import annotations

from functools import lru_cache

import idna


class BadAddress(ValueError):
    """The text is no address that mail can be sent to or from; the message says why."""


def domain_of(address: str) -> str:
    """What follows the last `@`, lower case, without a final dot; "" where there is none."""
    return address.rpartition("@")[2].rstrip(".").lower() if "@" in address else ""


@lru_cache(maxsize=65536)
def ascii_domain(domain: str) -> str:
    """The domain in A-labels, lower case.

    Raises:
        BadAddress: no valid host name.
    """
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii").lower()
    except idna.IDNAError as error:
        raise BadAddress(f"{domain!r} is not a valid internationalised domain name: {error}") from error
