"""AUTH (RFC 4954): when it is offered, who has proved to be whom, and how guessing is slowed.

Owns the command and the session's identity. The exchanges of PLAIN and LOGIN are aiosmtpd's; the verification is
`credentials`', the slowing is `core.submission.AuthThrottle`'s.
"""

# ruff: noqa: N802  # the methods are named as aiosmtpd names its own

from __future__ import annotations

import asyncio
from typing import Final

from aiosmtpd.smtp import LoginPassword

from postrail.core import refusals
from postrail.core.headers_in import Trace
from postrail.core.ingress_config import ListenerKind
from postrail.core.refusals import Reason, Refused
from postrail.core.submission import Submitter
from postrail.ingress import metrics
from postrail.ingress.connection import ConnectionEnded
from postrail.ingress.encryption import EncryptedConnection
from postrail.ingress.reception import Door
from postrail.shell import logs

LOG = logs.logger("ingress")
_MECHANISMS: Final = frozenset({"PLAIN", "LOGIN"})


class Authentication(EncryptedConnection):
    """Who the client is, and how it says so."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.door = door
        self.desk = door.desk
        self.timeout_seconds = door.desk.limits.command_timeout_seconds
        self.client = ""
        self.client_address = ""
        self.submitter: Submitter | None = None
        self.is_authenticated = False
        self.helo_name = ""
        self.extended = False
        self.errors = 0
        self.traces: dict[bool, Trace] = {}

    @property
    def offers_tls(self) -> bool:
        """Whether STARTTLS may be said."""
        return self.desk.has_tls and not self.is_tls

    @property
    def offers_auth(self) -> bool:
        """Whether AUTH may be said."""
        return self.door.kind is not ListenerKind.TRUSTED and self.is_tls

    async def smtp_AUTH(self, arg: str) -> None:
        if not self.extended:
            raise refusals.bad_sequence("Say EHLO first")
        if self.door.kind is ListenerKind.TRUSTED:
            raise Refused(Reason.SEQUENCE, 502, "5.5.1", "AUTH is not offered here")
        if not self.is_tls:
            raise Refused(Reason.TLS_REQUIRED, 538, "5.7.11", "Say STARTTLS first: AUTH needs encryption")
        if self.is_authenticated:
            raise refusals.bad_sequence("Already authenticated")
        args = arg.split()
        if not args or len(args) > 2:
            raise refusals.syntax("Syntax: AUTH mechanism [initial-response]", "5.5.4")
        mechanism = args[0].upper()
        if mechanism not in _MECHANISMS:
            raise Refused(Reason.PARAMETER, 504, "5.5.4", "Mechanisms are PLAIN and LOGIN")
        result = await (self.auth_PLAIN(None, args) if mechanism == "PLAIN" else self.auth_LOGIN(None, args))
        if not result.success:  # the exchange has answered: aborted, or no base64
            self.errors += 1
            return
        assert isinstance(result.auth_data, LoginPassword)
        await self._verify(result.auth_data)

    async def _verify(self, words: LoginPassword) -> None:
        throttle, loop = self.desk.throttle, self.loop
        if throttle.is_blocked(self.client, loop.time()):
            raise refusals.closing(Reason.AUTH_FAILED, "4.7.0", "Too many failed logins from your address; try later")
        throttle.begin(self.client, loop.time())
        found: Submitter | None = None
        delay = 0.0
        try:
            found = await self.desk.credentials.verify(words.login, words.password)
        finally:
            delay = throttle.end(self.client, loop.time(), failed=found is None)
        if found is not None:
            self.submitter = found
            self.is_authenticated = True
            self.traces.clear()
            self.say(b"235 2.7.0 Authentication successful")
            return
        metrics.AUTH_FAILURES.inc()
        LOG.warning(
            "authentication_failed",
            client=self.client_address,
            submitter=words.login.decode("utf-8", "replace")[:100],
            answered_after_seconds=delay,
        )
        await self._wait(delay)
        if throttle.has_failed_too_often(self.client):
            raise refusals.closing(Reason.AUTH_FAILED, "4.7.0", "Too many failed logins from your address; try later")
        raise Refused(Reason.AUTH_FAILED, 535, "5.7.8", "Wrong name or password")

    async def _wait(self, seconds: float) -> None:
        self.is_idle = True
        await asyncio.sleep(seconds)
        self.is_idle = False
        if self.is_ended:
            raise ConnectionEnded
