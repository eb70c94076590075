"""The words between an SMTP client's state machine and who uses it: commands go in, events come out.

Owns these values only; `smtp_client` says when each may come. The command of a transaction is in `smtp_commands`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from postrail.core.replies import Reply
from postrail.core.smtp_commands import Capabilities, Transaction
from postrail.core.verdicts import Stage


class Outcome(NamedTuple):
    """What the server said that decides about one recipient."""

    stage: Stage
    reply: Reply


class Greeted(NamedTuple):
    """The server is there; `Hello` is next."""

    reply: Reply


class HelloAccepted(NamedTuple):
    """The session is open; capabilities are known."""

    capabilities: Capabilities


class SessionRefused(NamedTuple):
    """The server does not want this session; the machine is closed."""

    stage: Stage
    reply: Reply


@dataclass(frozen=True, slots=True)
class StartTlsAccepted:
    """Negotiate TLS now, then `secured()`."""


class StartTlsRefused(NamedTuple):
    """The session goes on in clear, if the caller wants it to."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class ContentWanted:
    """354, and at least one recipient was taken: write the content, then `end_content()`."""


class TransactionOver(NamedTuple):
    """How a transaction ended: one outcome a recipient, in their order, None where nothing is known.

    `ambiguous`: the final dot was sent and its answer never came, so recipients without outcome may have the message.
    """

    outcomes: tuple[Outcome | None, ...]
    ambiguous: bool = False


class Goodbye(NamedTuple):
    """The server answered QUIT, or closed the idle session with 421."""

    reply: Reply


Event = (
    Greeted
    | HelloAccepted
    | SessionRefused
    | StartTlsAccepted
    | StartTlsRefused
    | ContentWanted
    | TransactionOver
    | Goodbye
)


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO (LHLO for LMTP) with our name; falls back to HELO by itself."""

    name: str


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS; only when the server offers it."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


Command = Hello | StartTls | Transaction | Quit
