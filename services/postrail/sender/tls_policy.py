"""What TLS a mail host is spoken to with.

Owns that decision, for each MX host, and the client's TLS contexts. Opportunistic today; DANE (RFC 7672) and MTA-STS
(RFC 8461) will decide here, from what the resolver and the policy cache know of the host, and return VERIFIED.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

from postrail.core.delivery_config import OutboundTls
from postrail.core.records import RouteKind


class TlsLevel(Enum):
    """How much is asked of the connection."""

    NONE = auto()
    """STARTTLS is not used."""
    OPPORTUNISTIC = auto()
    """Used where it works; any certificate; in clear where it does not (RFC 7435)."""
    REQUIRED = auto()
    """Never in clear; any certificate."""
    VERIFIED = auto()
    """Never in clear, and the certificate must be valid for the host."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """For one host. `server_name` goes into SNI, and is what VERIFIED checks."""

    level: TlsLevel
    server_name: str

    @property
    def may_be_clear(self) -> bool:
        """Whether mail may go without TLS."""
        return self.level in (TlsLevel.NONE, TlsLevel.OPPORTUNISTIC)

    @property
    def context(self) -> ssl.SSLContext:
        """The TLS settings to use."""
        return _context(self.level is TlsLevel.VERIFIED)


def policy_for(host: str, kind: RouteKind, configured: OutboundTls, *, required: bool) -> TlsPolicy:
    """The policy for one host.

    Args:
        required: what the limits of the site say (`tls_required`); wins over the configured level.
    """
    if required and kind is not RouteKind.LMTP:
        return TlsPolicy(TlsLevel.REQUIRED, host)
    if configured is OutboundTls.NONE or host.startswith("unix:"):
        return TlsPolicy(TlsLevel.NONE, host)
    return TlsPolicy(TlsLevel.OPPORTUNISTIC, host)


@cache
def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def described(transport_extra: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """Version and cipher of an established connection, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`; "" in clear."""
    if transport_extra is None:
        return ""
    cipher = transport_extra.cipher()
    return f"{transport_extra.version()} {cipher[0] if cipher else ''}".strip()
