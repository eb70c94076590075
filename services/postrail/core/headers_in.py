"""The header block of a submitted message: what is read from it, what is taken out, what is added.

Owns the edits of submission (RFC 6409 §8): Received at the top, Date and Message-ID where missing, Bcc, Return-Path and the
control fields out. Raises `Refused` with 554 5.6.0 for what is no header block, 554 5.4.6 for a loop. Pure: the id, the
time and the host name are arguments. Neighbours: `header_block` (fields), `submission` (may it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.errors import NonASCIILocalPartDefect
from email.headerregistry import AddressHeader
from email.policy import default as email_policy
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple

from postrail.core import header_block, refusals
from postrail.core.address import BadAddress, check_domain
from postrail.core.header_block import Field, MalformedHeader
from postrail.core.records import NO_METADATA
from postrail.core.refusals import Reason, Refused

MAX_HOPS: Final = 100
MAX_TAG_CHARACTERS: Final = 128
MAX_METADATA_FIELDS: Final = 20
MAX_METADATA_CHARACTERS: Final = 1000
_MAX_ADDRESS_LIST_BYTES: Final = 8192
_STREAM: Final = b"x-postrail-stream"
_TAG: Final = b"x-postrail-tag"
_CONTROL: Final = frozenset({_STREAM, _TAG})
_METADATA_PREFIX: Final = b"x-postrail-metadata-"
_REMOVED: Final = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_METADATA_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SIMPLE_AUTHOR: Final = re.compile(
    rb"(?:[A-Za-z0-9 !#$%&'*+/=?^_`{|}~.-]*|\"[^\"\\\r\n]*\" *)<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@([A-Za-z0-9.-]+)>"
    rb"|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@([A-Za-z0-9.-]+)"
)
_MESSAGE_ID: Final = re.compile(rb"<([!-;=?-~]{1,900})>")


class SubmittedHeader(NamedTuple):
    """What a message's header block says, and the fields of it that stay.

    `author_domains` are the From field's, in A-labels; `stream`, `tag` and `metadata` come from the control fields.
    `header_message_id` has no angle brackets and is "" where the field is missing.
    """

    kept: list[Field]
    author_domains: tuple[str, ...]
    stream: str
    tag: str
    metadata: tuple[tuple[str, str], ...]
    header_message_id: str
    has_message_id: bool
    has_date: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What the Received field says of the session: all but the message's own id, recipient and time (RFC 5321 §4.4)."""

    received_from: bytes
    """`Received: from NAME ([ADDRESS])\\r\\n\\tby HOST with PROTOCOL (TLS)\\r\\n\\tid `."""

    @classmethod
    def of(cls, ehlo: str, address: str, hostname: str, protocol: str, tls: str) -> Trace:
        """`ehlo` as checked by the session; `protocol` as RFC 3848 and RFC 6531 name it; `tls` "" without TLS."""
        literal = f"IPv6:{address}" if ":" in address else address
        with_tls = f" ({tls})" if tls else ""
        return cls(
            f"Received: from {ehlo} ([{literal}])\r\n\tby {hostname} with {protocol}{with_tls}\r\n\tid ".encode()
        )

    def field(self, message_id: str, recipient: str, now: float) -> bytes:
        """The whole field; `recipient` only where there is exactly one, so that none learns of another."""
        to = f"\r\n\tfor <{recipient}>" if recipient else ""
        return self.received_from + f"{message_id}{to};\r\n\t{_date(int(now))}\r\n".encode()


@lru_cache(maxsize=4)
def _date(unix_seconds: int) -> str:
    return formatdate(unix_seconds)


def protocol_name(*, extended: bool, smtputf8: bool, tls: bool, authenticated: bool) -> str:
    """The keyword after `with` (RFC 3848, RFC 6531 §4.3)."""
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if tls else "") + ("A" if authenticated else "")


def read(block: bytes) -> SubmittedHeader:
    """Look through the header block once.

    Raises:
        Refused: 554 5.6.0 malformed or without exactly one From field, 554 5.4.6 too many hops, 554 5.6.0 control fields
            that are wrong.
    """
    try:
        found = header_block.fields(block)
    except MalformedHeader as error:
        raise refusals.content(f"Malformed header: {error}") from error
    kept: list[Field] = []
    control: list[Field] = []
    authors: list[Field] = []
    message_id: Field | None = None
    hops, has_date = 0, False
    for field in found:
        name = field.name
        if name in _REMOVED:
            continue
        if name in _CONTROL or name.startswith(_METADATA_PREFIX):
            control.append(field)
            continue
        kept.append(field)
        if name == b"from":
            authors.append(field)
        elif name == b"received":
            hops += 1
        elif name == b"date":
            has_date = True
        elif name == b"message-id":
            message_id = field
    if hops > MAX_HOPS:
        raise Refused(Reason.LOOP, 554, "5.4.6", f"Too many hops: {hops} Received fields, so this is a mail loop")
    stream, tag, metadata = _control(control) if control else ("", "", NO_METADATA)
    return SubmittedHeader(
        kept, _author(authors), stream, tag, metadata, _message_id(message_id), message_id is not None, has_date
    )


def build(header: SubmittedHeader, received: bytes, message_id: str, hostname: str, now: float) -> tuple[bytes, str]:
    """The header block to keep, and its Message-ID without angle brackets."""
    added = b""
    header_message_id = header.header_message_id
    if not header.has_date:
        added += f"Date: {_date(int(now))}\r\n".encode()
    if not header.has_message_id:
        header_message_id = f"{message_id}@{hostname}"
        added += f"Message-ID: <{header_message_id}>\r\n".encode()
    return received + header_block.join(header.kept) + added, header_message_id


def _message_id(field: Field | None) -> str:
    if field is None:
        return ""
    match = _MESSAGE_ID.search(field.value)
    return match[1].decode("ascii") if match else ""


def _author(authors: list[Field]) -> tuple[str, ...]:
    if len(authors) != 1:
        raise refusals.content(
            "The message has no From field" if not authors else "The message has more than one From field"
        )
    return author_domains(authors[0].value)


@lru_cache(maxsize=4096)
def author_domains(value: bytes) -> tuple[str, ...]:
    """The domains of a From field's addresses, in A-labels.

    Raises:
        Refused: 554 5.6.0, it cannot be read in exactly one way.
    """
    match = _SIMPLE_AUTHOR.fullmatch(value)
    names = [(match[1] or match[2]).decode("ascii")] if match is not None else _parsed_domains(value)
    try:
        return tuple(dict.fromkeys(check_domain(name) for name in names))
    except BadAddress as error:
        raise refusals.content(f"The From field has a malformed address: {error}") from error


def _parsed_domains(value: bytes) -> list[str]:
    """Quoted strings, comments, lists, encoded words: the standard library's parser, which must find nothing wrong."""
    if len(value) > _MAX_ADDRESS_LIST_BYTES:
        raise refusals.content("The From field is too long")
    try:
        header = email_policy.header_factory("from", value.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        raise refusals.content("The From field cannot be read") from error
    if not isinstance(header, AddressHeader) or not header.addresses:
        raise refusals.content("The From field has no address")
    defects: Iterable[object] = getattr(header, "defects", ())
    if any(not isinstance(defect, NonASCIILocalPartDefect) for defect in defects):
        raise refusals.content("The From field is malformed")
    domains = [address.domain for address in header.addresses]
    if not all(domains):
        raise refusals.content("The From field has an address without a domain")
    return domains


def _control(fields: list[Field]) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    stream = tag = ""
    metadata: dict[str, str] = {}
    for field in fields:
        value = field.value.decode("utf-8", "replace")
        if field.name == _STREAM:
            stream = value.lower()
        elif field.name == _TAG:
            if len(value) > MAX_TAG_CHARACTERS or not value.isprintable():
                raise refusals.content(f"X-Postrail-Tag must be at most {MAX_TAG_CHARACTERS} printable characters")
            tag = value
        else:
            name = field.name[len(_METADATA_PREFIX) :].decode("ascii")
            if not _METADATA_NAME.fullmatch(name) or len(value) > MAX_METADATA_CHARACTERS or not value.isprintable():
                raise refusals.content(
                    f"X-Postrail-Metadata fields need a short name and at most {MAX_METADATA_CHARACTERS} printable characters"
                )
            metadata[name] = value
    if len(metadata) > MAX_METADATA_FIELDS:
        raise refusals.content(f"More than {MAX_METADATA_FIELDS} X-Postrail-Metadata fields")
    return stream, tag, tuple(sorted(metadata.items()))
