"""Who may submit what: the sender's domains, its streams, and how guessing passwords and sending too fast are slowed.

Owns the decisions that need nothing but the configuration and what the session knows; time is an argument. Raises `Refused`.
Neighbours: ingress/session asks, `headers_in` reads what the message itself says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final

from postrail.core.address import (
    BadAddress,
    NeedsSmtpUtf8,
    RelayAttempt,
    ascii_domain,
    check_address,
    check_recipient,
    split_path,
)
from postrail.core.ingress_config import SubmitterConfig
from postrail.core.refusals import Reason, Refused, relay_denied, sender_denied

MAX_AUTH_DELAY_SECONDS: Final = 30.0
FORGET_FAILURES_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Submitter:
    """A submitter with its domains ready for look-up: exact names, suffixes (`.example.com`), or all."""

    config: SubmitterConfig
    exact: frozenset[str]
    suffixes: tuple[str, ...]
    everything: bool

    @classmethod
    def of(cls, config: SubmitterConfig) -> Submitter:
        """From the configuration; domains become A-labels."""
        names = [
            "." + ascii_domain(name[1:]) if name.startswith(".") else ascii_domain(name) for name in config.domains
        ]
        return cls(
            config,
            frozenset(name for name in names if not name.startswith(".")),
            tuple(name for name in names if name.startswith(".")),
            "*" in names,
        )

    def owns(self, domain: str) -> bool:
        """Whether it may send as this domain (in A-labels)."""
        return self.everything or domain in self.exact or (bool(self.suffixes) and domain.endswith(self.suffixes))


def reverse_path(argument: str, submitter: Submitter, *, smtputf8: bool) -> str:
    """The reverse path of `<path>`'s inside, "" for the null one, if this submitter may send as it.

    Raises:
        Refused: 501 5.1.7 malformed, 553 5.6.7 needs SMTPUTF8, 550 5.7.1 not allowed.
    """
    if not argument:
        if not submitter.config.null_sender:
            raise sender_denied(f"{submitter.config.name} may not send from the null reverse path")
        return ""
    try:
        domain = check_address(argument, smtputf8=smtputf8)
    except RelayAttempt as error:
        raise relay_denied(f"Sender address refused: {error}") from error
    except NeedsSmtpUtf8 as error:
        raise Refused(Reason.ADDRESS, 553, "5.6.7", f"Sender address refused: {error}") from error
    except BadAddress as error:
        raise Refused(Reason.ADDRESS, 501, "5.1.7", f"Sender address refused: {error}") from error
    if not submitter.owns(domain):
        raise sender_denied(f"{submitter.config.name} may not send as {domain}")
    return argument


def forward_path(argument: str, *, smtputf8: bool) -> str:
    """The recipient address of `<path>`'s inside.

    Raises:
        Refused: 553 5.1.3 malformed, 553 5.6.7 needs SMTPUTF8, 550 5.7.1 asks for relaying.
    """
    try:
        check_recipient(argument, smtputf8=smtputf8)
    except RelayAttempt as error:
        raise relay_denied(f"Relaying refused: {error}") from error
    except NeedsSmtpUtf8 as error:
        raise Refused(Reason.ADDRESS, 553, "5.6.7", f"Recipient address refused: {error}") from error
    except BadAddress as error:
        raise Refused(Reason.ADDRESS, 553, "5.1.3", f"Recipient address refused: {error}") from error
    return argument


def mail_path(text: str) -> tuple[str, str]:
    """`<path> PARAMETERS` of MAIL; raises Refused 501 5.1.7."""
    try:
        return split_path(text)
    except BadAddress as error:
        raise Refused(Reason.ADDRESS, 501, "5.1.7", f"Sender address refused: {error}") from error


def rcpt_path(text: str) -> tuple[str, str]:
    """`<path> PARAMETERS` of RCPT; raises Refused 501 5.1.3."""
    try:
        return split_path(text)
    except BadAddress as error:
        raise Refused(Reason.ADDRESS, 501, "5.1.3", f"Recipient address refused: {error}") from error


def check_author(domains: Iterable[str], submitter: Submitter) -> None:
    """The From field's domains must be the submitter's, too: their keys sign the message. Raises Refused 550 5.7.1."""
    for domain in domains:
        if not submitter.owns(domain):
            raise sender_denied(f"{submitter.config.name} may not send with a From field of {domain}")


def stream_of(asked: str, submitter: Submitter) -> str:
    """The message's stream: what its control header asks for, or the submitter's own. Raises Refused 550 5.7.1."""
    config = submitter.config
    if not asked or asked == config.stream:
        return config.stream
    if asked not in config.streams:
        raise Refused(Reason.STREAM, 550, "5.7.1", f"{config.name} may not send on this stream")
    return asked


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64 (one host has a whole one)."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"


@dataclass(slots=True)
class _Guesser:
    failures: int = 0
    pending: int = 0
    last_at: float = 0.0
    free_at: float = 0.0


@dataclass(slots=True)
class AuthThrottle:
    """Slows password guessing by client address; others are not affected. Holds at most `max_clients` addresses.

    `max_failures`: how many failures an address may have before it is answered 421. `delay_seconds`: before the first
    535, doubled with each failure up to 30 s; an address with too many failures may try once in that time.
    """

    max_failures: int
    delay_seconds: float
    max_clients: int = 50_000
    max_pending: int = 16
    _clients: dict[str, _Guesser] = field(default_factory=dict)

    def is_blocked(self, client: str, now: float) -> bool:
        """Whether the address must not even try now."""
        guesser = self._clients.get(client)
        return guesser is not None and (
            guesser.pending >= self.max_pending or (guesser.failures >= self.max_failures and now < guesser.free_at)
        )

    def begin(self, client: str, now: float) -> None:
        """A password of this address is about to be verified; `end` follows."""
        guesser = self._clients.get(client)
        if guesser is None:
            if len(self._clients) >= self.max_clients:
                self._forget(now)
            guesser = self._clients[client] = _Guesser()
        elif guesser.failures and now - guesser.last_at > FORGET_FAILURES_SECONDS:
            guesser.failures = 0
        guesser.pending += 1

    def end(self, client: str, now: float, *, failed: bool) -> float:
        """The verification ended; returns how many seconds the answer must wait (0 when it did not fail)."""
        guesser = self._clients.get(client)
        if guesser is None:
            return 0.0
        guesser.pending -= 1
        if not failed:
            if not guesser.failures and not guesser.pending:
                del self._clients[client]
            return 0.0
        guesser.failures += 1
        guesser.last_at = now
        delay = min(MAX_AUTH_DELAY_SECONDS, self.delay_seconds * 2.0 ** min(guesser.failures - 1, 16))
        guesser.free_at = max(guesser.free_at, now) + delay
        return delay

    def has_failed_too_often(self, client: str) -> bool:
        """Whether the address is answered 421 rather than 535."""
        guesser = self._clients.get(client)
        return guesser is not None and guesser.failures > self.max_failures

    def _forget(self, now: float) -> None:
        """Make room: what is old goes, and if that is not enough, whoever has failed least."""
        idle = [(name, guesser) for name, guesser in self._clients.items() if not guesser.pending]
        for name, guesser in idle:
            if now - guesser.last_at > FORGET_FAILURES_SECONDS:
                del self._clients[name]
        if len(self._clients) >= self.max_clients:
            for name, _ in sorted(idle, key=lambda item: (item[1].failures, item[1].last_at))[: self.max_clients // 10]:
                self._clients.pop(name, None)


@dataclass(slots=True)
class TokenBucket:
    """`per_minute` tokens a minute, at most a minute's worth saved up."""

    per_minute: float
    tokens: float
    updated_at: float

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self.tokens = min(self.per_minute, self.tokens + (now - self.updated_at) * self.per_minute / 60.0)
        self.updated_at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
