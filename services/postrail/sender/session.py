"""Opens a session with the first mail host that takes one: connect, greeting, EHLO, STARTTLS.

Owns the way from a next hop to a session that is ready for MAIL, over hosts and their addresses (RFC 5321 §5.1). Which targets
there are is in `targets`, what TLS in `tls_policy`; what is then done with the session in `connection`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import Counter

from postrail.core.delivery_config import OutboundTls, TimeoutsConfig
from postrail.core.records import RouteKind
from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.smtp_client import SmtpClient
from postrail.core.smtp_events import (
    Greeted,
    Hello,
    HelloAccepted,
    SessionRefused,
    StartTls,
    StartTlsAccepted,
    StartTlsRefused,
)
from postrail.core.verdicts import Stage, judge
from postrail.sender.egress import ConnectFailed, ProxyFailed, SourceMismatch, connect
from postrail.sender.sources import Source
from postrail.sender.targets import NextHop, Target, TargetFinder, joined
from postrail.sender.tls_policy import TlsLevel, TlsPolicy, described, policy_for
from postrail.sender.wire import ConnectionBroken, Wire

# Attempts to open a session with one address. outcome: ready, unreachable (no connection), refused (greeting, EHLO or STARTTLS
# said no, or TLS was demanded and not to be had), broken (the connection ended, or time ran out), source (the source address
# cannot be used), proxy (the egress proxy of the source address does not work). Alert when the share of ready falls below a half
# for 15 minutes, and on proxy at once.
CONNECTIONS = Counter("postrail_sender_connection_attempts_total", "Attempts to open a session.", ["outcome"])
# Sessions by TLS version; `none` is plaintext. Alert on nothing; a sudden rise of none tells of stripped STARTTLS.
TLS = Counter("postrail_sender_tls_sessions_total", "Sessions that became ready.", ["version"])
# TLS handshakes that failed and were followed by a plaintext attempt.
TLS_FALLBACKS = Counter("postrail_sender_tls_fallbacks_total", "Handshakes that failed, then tried in clear.")

_TLS_VERSIONS = frozenset({"TLSv1.2", "TLSv1.3"})


class Unreachable(Exception):
    """No host took a session; `failure` stands for all of them, `target` is the last one that was tried."""

    def __init__(self, failure: Failure, target: Target | None) -> None:
        super().__init__(str(failure.reply))
        self.failure = failure
        self.target = target


class _Failed(Exception):
    """One target did not work."""

    def __init__(self, outcome: str, failure: Failure, *, in_tls: bool = False) -> None:
        super().__init__(str(failure.reply))
        self.outcome = outcome
        self.failure = failure
        self.in_tls = in_tls


@dataclass(slots=True)
class Session:
    """A session that is ready for MAIL. `tls` is "" in clear."""

    wire: Wire
    machine: SmtpClient
    target: Target
    tls: str


@dataclass(frozen=True, slots=True)
class Opening:
    """How sessions from one source address to one site are opened.

    Attributes:
        source: the address, and how mail leaves from it.
        before_connect: waited for before each connection after the first (the rate of new connections).
    """

    source: Source
    ehlo: str
    tls: OutboundTls
    tls_required: bool
    timeouts: TimeoutsConfig
    finder: TargetFinder
    before_connect: Callable[[], Awaitable[None]]

    async def open(self, hop: NextHop) -> Session:
        """A session with the first target that takes one.

        Raises:
            Unreachable: none did.
            SourceMismatch: the source address cannot be used; nothing was said to anybody.
        """
        failures: list[Failure] = []
        target: Target | None = None
        for host, port, fallback in self.finder.hosts(hop):
            addresses = await self.finder.addresses(hop, host, port, self.source.address, fallback=fallback)
            if not isinstance(addresses, list):
                failures.append(addresses)
                continue
            for address in addresses:
                if target is not None:
                    await self.before_connect()
                target = Target(host, address, port, fallback)
                try:
                    session = await self._try(hop, target, failures)
                except ProxyFailed as error:
                    self.source.proxy_failed()
                    CONNECTIONS.labels("proxy").inc()
                    raise Unreachable(_unreachable("4.3.0", str(error)), None) from error
                if session is not None:
                    return session
        if not failures:
            text = "every mail host of the domain is this system"
            failures.append(PermanentFailure(Reply(554, "5.4.6", text), Scope.SITE, internal=True))
        raise Unreachable(joined(failures), target)

    async def _try(self, hop: NextHop, target: Target, failures: list[Failure]) -> Session | None:
        policy = policy_for(target.host, hop.kind, self.tls, required=self.tls_required)
        try:
            try:
                return await self._dial(hop, target, policy)
            except _Failed as failed:
                if not (failed.in_tls and policy.may_be_clear):
                    raise
            TLS_FALLBACKS.inc()
            await self.before_connect()
            return await self._dial(hop, target, TlsPolicy(TlsLevel.NONE, target.host))
        except _Failed as failed:
            CONNECTIONS.labels(failed.outcome).inc()
            failures.append(failed.failure)
            return None
        except SourceMismatch as error:
            self.source.mismatched(error.problem)
            CONNECTIONS.labels("source").inc()
            raise

    async def _dial(self, hop: NextHop, target: Target, policy: TlsPolicy) -> Session:
        machine = SmtpClient(lmtp=hop.kind is RouteKind.LMTP)
        wire = Wire(machine, self.timeouts)
        where = f"{target.host} [{target.address}]:{target.port}" if target.port else target.address
        try:
            await connect(self.source.way, target.address, target.port, wire, self.timeouts.connect_seconds)
        except ConnectFailed as error:
            raise _Failed("unreachable", _unreachable("4.4.1", f"{where}: {error}")) from error
        self.source.verified()
        try:
            tls = await self._shake_hands(wire, machine, policy)
        except ConnectionBroken as error:
            wire.abort()
            raise _Failed("broken", _unreachable("4.4.2", f"{where}: {error}")) from error
        except BaseException:
            wire.abort()
            raise
        CONNECTIONS.labels("ready").inc()
        version = tls.partition(" ")[0]
        TLS.labels((version if version in _TLS_VERSIONS else "other") if version else "none").inc()
        return Session(wire, machine, target, tls)

    async def _shake_hands(self, wire: Wire, machine: SmtpClient, policy: TlsPolicy) -> str:
        event = await wire.event()
        if isinstance(event, SessionRefused):
            raise _Failed("refused", judge(event.reply, event.stage))
        assert isinstance(event, Greeted)
        await self._hello(wire)
        if policy.level is TlsLevel.NONE:
            return ""
        if not machine.capabilities.starttls:
            if policy.may_be_clear:
                return ""
            raise _Failed("refused", _tls_missing(f"{policy.server_name} does not offer STARTTLS"))
        wire.send(StartTls())
        event = await wire.event()
        if isinstance(event, StartTlsRefused):
            if policy.may_be_clear:
                return ""
            raise _Failed("refused", _tls_missing(f"{policy.server_name} refuses STARTTLS: {event.reply}"))
        if isinstance(event, SessionRefused):
            raise _Failed("refused", judge(event.reply, Stage.STARTTLS))
        assert isinstance(event, StartTlsAccepted)
        try:
            await wire.start_tls(policy.context, policy.server_name, self.timeouts.starttls_seconds)
        except ConnectionBroken as error:
            wire.abort()
            raise _Failed("refused", _tls_missing(f"{policy.server_name}: {error}"), in_tls=True) from error
        await self._hello(wire)
        return described(wire.transport.get_extra_info("ssl_object"))

    async def _hello(self, wire: Wire) -> None:
        wire.send(Hello(self.ehlo))
        event = await wire.event()
        if isinstance(event, SessionRefused):
            raise _Failed("refused", judge(event.reply, event.stage))
        assert isinstance(event, HelloAccepted)


def _unreachable(enhanced: str, text: str) -> TemporaryFailure:
    return TemporaryFailure(Reply(451, enhanced, text), Scope.SITE, internal=True)


def _tls_missing(text: str) -> TemporaryFailure:
    return TemporaryFailure(Reply(451, "4.7.5", f"TLS is required, but {text}"), Scope.SITE, internal=True)
