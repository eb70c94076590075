"""Mail addresses and domains.

Owns the syntax of paths in MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531), the refusal of those that ask for relaying, and the
A-label form of domains (IDNA 2008, UTS 46). Never decides who may use an address; that is `postrail.core.submission`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import idna

MAX_LOCAL_PART_BYTES: Final = 64
MAX_DOMAIN_BYTES: Final = 255
MAX_PATH_BYTES: Final = 254  # RFC 5321 §4.5.3.1.3 less the angle brackets

_PATH: Final = re.compile(r'\s*<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(?:[ \t]+(.*))?')
_PLAIN: Final = re.compile(
    r"[A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,63}"
)
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LOCAL_PART: Final = re.compile(rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*")')
_HOST_NAME: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


class BadAddress(ValueError):
    """The text is no address that mail can be sent to or from; the message says why."""


class NeedsSmtpUtf8(BadAddress):
    """The address is not ASCII, and SMTPUTF8 was not asked for (RFC 6531 §3.4)."""


class RelayAttempt(BadAddress):
    """The address asks to be passed on by way of another one: source route, percent sign, bang path, quoted address."""


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


def split_path(text: str) -> tuple[str, str]:
    """`<path> PARAMETERS` → the path without its angle brackets, and the parameters.

    Raises:
        BadAddress: there is no path in angle brackets.
    """
    if text[:1] == "<" and text.find(">") == len(text) - 1 and '"' not in text:  # by far the most
        return text[1:-1], ""
    match = _PATH.fullmatch(text)
    if match is None:
        raise BadAddress("the address must stand in angle brackets")
    return match[1], match[2] or ""


@lru_cache(maxsize=8192)
def check_address(address: str, *, smtputf8: bool) -> str:
    """The domain of a well-formed address, in A-labels.

    Raises:
        NeedsSmtpUtf8: not ASCII without `smtputf8`.
        RelayAttempt: a source route, or a quoted local part with an address in it.
        BadAddress: otherwise malformed, or to an address literal.
    """
    if len(address) <= MAX_LOCAL_PART_BYTES and _PLAIN.fullmatch(address):
        return domain_of(address)
    if address.startswith("@"):
        raise RelayAttempt("source routes are not accepted")
    local_part, at, domain = address.rpartition("@")
    if not at or not local_part:
        raise BadAddress("the address has no domain" if not at else "the address has no local part")
    if not address.isascii() and not smtputf8:
        raise NeedsSmtpUtf8("an address that is not ASCII needs the parameter SMTPUTF8")
    if "@" in local_part:
        raise RelayAttempt("the local part holds another address")
    _check_lengths(address, local_part)
    if not _LOCAL_PART.fullmatch(local_part):
        raise BadAddress("the local part is malformed")
    if domain.startswith("["):
        raise BadAddress("address literals are not accepted")
    return check_domain(domain)


def _check_lengths(address: str, local_part: str) -> None:
    try:
        path_bytes, local_bytes = len(address.encode()), len(local_part.encode())
    except UnicodeEncodeError as error:
        raise BadAddress("the address is not valid UTF-8") from error
    if local_bytes > MAX_LOCAL_PART_BYTES:
        raise BadAddress(f"the local part is longer than {MAX_LOCAL_PART_BYTES} bytes")
    if path_bytes > MAX_PATH_BYTES:
        raise BadAddress(f"the address is longer than {MAX_PATH_BYTES} bytes")


def check_domain(domain: str) -> str:
    """The domain in A-labels.

    Raises:
        BadAddress: no valid host name.
    """
    name = ascii_domain(domain)
    if len(name) > MAX_DOMAIN_BYTES or not _HOST_NAME.fullmatch(name):
        raise BadAddress("the domain is malformed")
    return name


def check_recipient(address: str, *, smtputf8: bool) -> str:
    """As `check_address`, and refuses what older mailers would take as a route (`user%other@here`, `other!user@here`).

    Raises:
        RelayAttempt, NeedsSmtpUtf8, BadAddress: as `check_address`.
    """
    local_part = address.rpartition("@")[0]
    if "%" in local_part or "!" in local_part:
        raise RelayAttempt("the local part asks for relaying")
    return check_address(address, smtputf8=smtputf8)
