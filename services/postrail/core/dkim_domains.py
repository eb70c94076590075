"""Which signing domain signs for a From domain. Pure; used by submission (is there a key at all) and by signing."""

from __future__ import annotations

from collections.abc import Container


def signing_domain_for(from_domain: str, signing_domains: Container[str]) -> str | None:
    """The longest of the signing domains that is the From domain or above it (relaxed alignment, RFC 7489 §3.1.1).

    Args:
        from_domain: in A-labels, lower case.
        signing_domains: the same form, such as `SigningConfig.domains`.
    """
    name = from_domain
    while name:
        if name in signing_domains:
            return name
        name = name.partition(".")[2]
    return None
