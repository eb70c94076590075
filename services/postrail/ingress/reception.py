"""What the sessions of a worker share (the desk), and what those of one listener share (its door).

Owns no protocol: limits, submitters, credentials, caps, memory, and which sessions there are. `service` makes them.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from postrail.core import refusals
from postrail.core.ingress_config import IngressLimits, ListenerConfig, ListenerKind
from postrail.core.refusals import Reason, Refused
from postrail.core.submission import AuthThrottle, Submitter, TokenBucket
from postrail.ingress import metrics
from postrail.ingress.acceptance import Acceptance
from postrail.ingress.admission import Admission
from postrail.ingress.content import Content, Spool
from postrail.ingress.credentials import Credentials
from postrail.shell.context import Context
from postrail.shell.tls_server import ServerCertificate


class Guest(Protocol):
    """What the desk asks of a session."""

    def expire(self, now: float) -> None:
        """Answer and close when the deadline has passed."""
        ...

    def dismiss(self) -> None:
        """End when idle, because the service drains."""
        ...

    def end(self) -> None:
        """Close the connection."""
        ...


class Desk:
    """Shared by all sessions of a worker."""

    def __init__(self, context: Context, certificate: ServerCertificate | None, clock: Callable[[], float]) -> None:
        config = context.config
        self.limits: IngressLimits = config.ingress.limits
        self.hostname = config.hostname.encode()
        self.submitters = {submitter.name: Submitter.of(submitter) for submitter in config.submitters}
        self.credentials = Credentials(self.submitters.values())
        self.throttle = AuthThrottle(self.limits.auth_failures_before_421, self.limits.auth_failure_delay_seconds)
        self.acceptance = Acceptance(context)
        self.sessions: set[Guest] = set()
        self.on_sessions: Callable[[int], None] = nobody_counts
        self.is_draining = False
        self.queue_records = 0
        self._max_queue_records = config.ingress.max_queue_records
        self._blobs = context.blobs
        self._inline_bytes = config.blobs.inline_limit_bytes
        self._spool = Spool(self.limits.spool_memory_bytes)
        self._admission = Admission(self.limits, context.shares)
        self._certificate = certificate
        self._clock = clock
        self._buckets = {
            submitter.name: TokenBucket(per_minute, per_minute, clock())
            for submitter in config.submitters
            if submitter.messages_per_minute is not None
            for per_minute in (max(1.0, submitter.messages_per_minute / context.shares),)
        }
        self._ehlo_replies: dict[tuple[bool, bool], bytes] = {}

    @property
    def has_tls(self) -> bool:
        """Whether there is a certificate."""
        return self._certificate is not None

    def tls_context(self) -> ssl.SSLContext:
        """The certificate of now, for a handshake."""
        assert self._certificate is not None
        return self._certificate.context

    def enter(self, session: Guest, client: str) -> Refused | None:
        """Admit a session, or say why not."""
        if self.is_draining:
            return refusals.closing(Reason.SHUTDOWN, "4.3.2", "Shutting down; try again")
        refused = self._admission.enter(client, self._clock())
        if refused is None:
            self.sessions.add(session)
            self.on_sessions(len(self.sessions))
            metrics.OPEN_CONNECTIONS.inc()
        return refused

    def leave(self, session: Guest, client: str) -> None:
        """A session's connection is gone; harmless for one that was not admitted."""
        if session in self.sessions:
            self.sessions.remove(session)
            self.on_sessions(len(self.sessions))
            self._admission.leave(client)
            metrics.OPEN_CONNECTIONS.dec()

    def check_room(self) -> None:
        """Raise Refused 452 4.3.1 while too much waits for signing."""
        if self.queue_records >= self._max_queue_records:
            raise refusals.storage_full()

    def check_rate(self, submitter: Submitter) -> None:
        """Count a message; raise Refused 450 4.7.1 when it is one too many this minute."""
        bucket = self._buckets.get(submitter.config.name)
        if bucket is not None and not bucket.take(self._clock()):
            raise Refused(Reason.RATE, 450, "4.7.1", f"{submitter.config.name} sends too fast; try again in a minute")

    def new_content(self) -> Content:
        """Where a message's content goes."""
        return Content(self._blobs, self._spool, self._inline_bytes, self.limits.max_header_bytes)

    def ehlo_reply(self, *, starttls: bool, auth: bool) -> bytes:
        """All lines of the reply to EHLO, without the last line end."""
        reply = self._ehlo_replies.get((starttls, auth))
        if reply is None:
            lines = [
                self.hostname.decode(),
                "PIPELINING",
                f"SIZE {self.limits.max_message_bytes}",
                "8BITMIME",
                "SMTPUTF8",
            ]
            lines += ["CHUNKING", "DSN", "ENHANCEDSTATUSCODES"]
            lines += ["STARTTLS"] if starttls else []
            lines += ["AUTH PLAIN LOGIN"] if auth else []
            reply = "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]).encode()
            self._ehlo_replies[(starttls, auth)] = reply
        return reply


class Door:
    """Shared by all sessions of a listener."""

    def __init__(self, desk: Desk, listener: ListenerConfig) -> None:
        self.desk = desk
        self.kind = listener.kind
        self._networks = tuple(ip_network(network) for network in listener.networks)
        self._submitter = desk.submitters.get(listener.submitter)

    def trusted_submitter(self, address: str) -> Submitter | None:
        """As whom a client of this address submits without AUTH; None when it may not."""
        if self.kind is not ListenerKind.TRUSTED:
            return None
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return self._submitter if any(parsed in network for network in self._networks) else None


def nobody_counts(sessions: int) -> None:
    """The one worker of a machine has nobody to tell."""
