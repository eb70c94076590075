"""The DNS record of a DKIM key: its value, its form in a zone file, reading it back.

Owns the text of RFC 6376 §3.6.1 and RFC 8463 §4. Never sees a private key. Neighbours: `postrail.cli.dkim`
prints it, `domain_checks` compares it.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

MAX_STRING_BYTES = 255
"""The longest character-string of a TXT record (RFC 1035 §3.3)."""


class KeyRevoked(ValueError):
    """The record says that the key must not be used any more."""


class PublicKey(NamedTuple):
    """`kind` is "rsa" or "ed25519"; `data` is SubjectPublicKeyInfo in DER, or the 32 bytes of Ed25519."""

    kind: str
    data: bytes


def name(selector: str, domain: str) -> str:
    """Where the record stands, without a final dot."""
    return f"{selector}._domainkey.{domain}"


def value(key: PublicKey) -> str:
    """The value of the TXT record, in one piece."""
    return f"v=DKIM1; k={key.kind}; p={base64.b64encode(key.data).decode('ascii')}"


def zone_line(selector: str, domain: str, key: PublicKey) -> str:
    """The record as a zone file has it: strings of at most 255 bytes."""
    text = value(key)
    strings = [text[start : start + MAX_STRING_BYTES] for start in range(0, len(text), MAX_STRING_BYTES)]
    quoted = "\n    ".join(f'"{string}"' for string in strings)
    return f"{name(selector, domain)}. IN TXT ( {quoted} )"


def parse(text: str) -> PublicKey:
    """The key of a published record.

    Raises:
        KeyRevoked: `p=` is empty.
        ValueError: it is no DKIM key record.
    """
    tags: dict[str, str] = {}
    for tag in text.split(";"):
        if tag.strip():
            tag_name, equals, content = tag.partition("=")
            if not equals:
                raise ValueError(f"{tag.strip()!r} is no tag of the form name=value")
            tags[tag_name.strip()] = "".join(content.split())
    if tags.get("v", "DKIM1") != "DKIM1":
        raise ValueError(f"v={tags['v']} is not DKIM1")
    if "p" not in tags:
        raise ValueError("there is no p= tag")
    if not tags["p"]:
        raise KeyRevoked("p= is empty, which says that the key is revoked")
    try:
        return PublicKey(tags.get("k", "rsa"), base64.b64decode(tags["p"], validate=True))
    except binascii.Error as error:
        raise ValueError(f"p= is not base64: {error}") from error
