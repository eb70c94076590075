"""What the DNS said about a domain's mail hosts, a host's addresses and other records, as plain values.

Owns the shapes only. `postrail.shell.dns` asks; `postrail.core.routes` decides what an answer means for mail.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class DnsStatus(StrEnum):
    """How a look-up ended."""

    FOUND = "found"
    NULL_MX = "null-mx"
    """The domain says that it takes no mail (RFC 7505)."""
    NO_DATA = "no-data"
    """The name exists, without what was asked for."""
    NXDOMAIN = "nxdomain"
    """The name does not exist."""
    FAILED = "failed"
    """Nothing is known: SERVFAIL, REFUSED, a time-out, or an answer that makes no sense."""


class MxHost(NamedTuple):
    """One mail host; `host` is in A-labels, lower case, without a final dot."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class MxAnswer:
    """The mail hosts of a domain, best preference first; empty unless FOUND.

    Attributes:
        status: how the look-up ended.
        hosts: sorted by preference, then name.
        authenticated: whether the resolver vouches for the answer (AD bit); true only where it validates DNSSEC.
        implicit: whether there is no MX record and the domain itself is the host (RFC 5321 §5.1).
        detail: for a person; why, where the status is not FOUND.
    """

    status: DnsStatus
    hosts: tuple[MxHost, ...] = ()
    authenticated: bool = False
    implicit: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The addresses of a host, IPv6 and IPv4 in the order of the answers; empty unless FOUND. Fields as in MxAnswer."""

    status: DnsStatus
    addresses: tuple[str, ...] = ()
    authenticated: bool = False
    detail: str = ""


class RecordKind(StrEnum):
    """Types of records that are asked for as they are, without the rules of mail hosts."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    """A value is the host alone, in order of preference; "" is the null MX's."""
    PTR = "PTR"
    TXT = "TXT"
    """A value is the text of one record, its strings joined."""


class Question(NamedTuple):
    """Records of one kind at a name. A decision that needs several asks with these, and is given a RecordAnswer for each."""

    kind: RecordKind
    name: str


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """The records of one kind at a name; empty unless FOUND. Names are lower case, without a final dot. Fields as in MxAnswer."""

    status: DnsStatus
    values: tuple[str, ...] = ()
    authenticated: bool = False
    detail: str = ""

    @property
    def is_void(self) -> bool:
        """Whether it is known that there is nothing."""
        return self.status in (DnsStatus.NO_DATA, DnsStatus.NXDOMAIN)


Asking = Generator[Question, RecordAnswer, T]
"""A decision that asks the DNS on its way, and does no I/O itself."""
