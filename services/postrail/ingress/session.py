"""The commands of one submission session (RFC 5321, 6409), in the order in which a client gives them.

Owns the state of the session and of its mail transaction, and answers each command: at once where nothing must be waited
for (a plain method), by its task otherwise (a coroutine). Decisions are core's (`submission`,
`esmtp_parameters`, `data_reader`); bytes and deadlines are `connection`'s; AUTH is `authentication`'s; what happens at the
final dot is `acceptance`'s.
"""

# ruff: noqa: N802  # the methods are named as aiosmtpd names its own

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from postrail.core import refusals, submission
from postrail.core.esmtp_parameters import mail_parameters, rcpt_parameters
from postrail.core.ingress_config import ListenerKind
from postrail.core.records import Recipient
from postrail.core.refusals import Reason, Refused
from postrail.ingress import metrics
from postrail.ingress.connection import NEVER, ConnectionEnded
from postrail.ingress.reception import Door
from postrail.ingress.transfer import OpenTransaction, Transfer
from postrail.shell import logs

LOG = logs.logger("ingress")
MAX_COMMAND_BYTES: Final = 4096
_EHLO_NAME: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_.])?|\[[A-Za-z0-9:.]{2,60}\])")
_NOT_THE_CLIENTS_FAULT: Final = frozenset(
    {Reason.STORAGE, Reason.UNAVAILABLE, Reason.SIGNING_KEY, Reason.RATE, Reason.INTERNAL}
)


class SubmissionSession(Transfer):
    """One client's session."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self.task: asyncio.Task[None] | None = None
        self._client = ""

    # Life

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.client_address = str(peer[0]) if peer else "unknown"
        self._client = submission.client_key(self.client_address)
        self.client = self._client
        refused = self.desk.enter(self, self._client)
        if refused is not None:
            metrics.CONNECTION_REFUSED.inc()
            metrics.count_refusal(refused)
            if self.door.kind is not ListenerKind.SUBMISSIONS:
                self.say(str(refused.reply).encode())
            self.end()
            return
        metrics.CONNECTION_ACCEPTED.inc()
        self.submitter = self.door.trusted_submitter(self.client_address)
        self.task = self.loop.create_task(self._handle_client())

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.desk.leave(self, self._client)

    async def _handle_client(self) -> None:
        """The session from greeting to end. It is never cancelled while a message is being stored."""
        try:
            if self.door.kind is ListenerKind.SUBMISSIONS:
                await self.start_tls(self.desk.tls_context())
            self.say(b"220 " + self.desk.hostname + b" ESMTP Postrail")
            while True:
                work = self.answer() or await self.until_work()
                try:
                    await work
                except Refused as refused:
                    self.refuse(refused)
        except ConnectionEnded:
            pass
        except Exception:
            LOG.exception("session_failed", client=self.client_address)
            self.refuse(refusals.closing(Reason.INTERNAL, "4.3.0", "Internal error; try again later"))
        finally:
            await self.end_transaction()
            self.end()

    def refuse(self, refused: Refused) -> None:
        """Answer, count, and close where the refusal or the number of errors says so."""
        metrics.count_refusal(refused)
        self.say(str(refused.reply).encode("ascii", "replace"))
        if refused.closes:
            still_sends = not self.is_idle or self.has_input  # also a client that is slow within a command
            self.end(lingers=still_sends and refused.reason is not Reason.SHUTDOWN)
            return
        if refused.reason not in _NOT_THE_CLIENTS_FAULT:
            self.errors += 1
            if self.errors >= self.desk.limits.max_errors_per_connection:
                self.refuse(refusals.closing(Reason.ERRORS, "4.7.0", "Too many errors; closing"))

    def expire(self, now: float) -> None:
        """The desk's sweep: answer and close when the deadline has passed."""
        refused = self.sweep(now)
        if refused is not None:
            self.refuse(refused)

    def dismiss(self) -> None:
        """The service drains: an idle session ends now, another after the message that it is in."""
        if self.in_handshake:
            self.end()
        elif self.is_idle and not self.is_ended:
            self.refuse(refusals.closing(Reason.SHUTDOWN, "4.3.2", "Shutting down; try again"))

    # Commands

    def answer(self) -> Awaitable[None] | None:
        """Take commands and content until one must be awaited, or all input is used up."""
        self.is_idle = False
        work = None
        while work is None and not self.is_ended:
            try:
                if self.incoming is not None:
                    if not self.has_input:
                        self.deadline = self.content_deadline()
                        return None
                    work = self.receive(self.incoming)
                elif self.desk.is_draining:
                    raise refusals.closing(Reason.SHUTDOWN, "4.3.2", "Shutting down; try again")
                else:
                    line = self.next_line()
                    if line is None:
                        self.is_idle = True
                        if self.deadline == NEVER:  # the whole line must come within the time
                            self.deadline = self.loop.time() + self.timeout_seconds
                        return None
                    self.deadline = NEVER
                    work = self._command(line)
            except Refused as refused:
                self.deadline = NEVER
                self.refuse(refused)
        if work is not None:
            self.deadline = NEVER
        return work

    def _command(self, line: bytes) -> Awaitable[None] | None:
        if line.find(b"\r") != len(line) - 2:
            raise refusals.unreadable("Lines end in CR LF; bare CR and LF are not accepted")
        if b"\0" in line:
            raise refusals.unreadable("NUL is not accepted")
        verb, _, argument = line[:-2].partition(b" ")
        command = _COMMANDS.get(verb.upper())
        if command is None:
            raise refusals.unreadable("Command not recognised")
        if len(line) > MAX_COMMAND_BYTES and command is not SubmissionSession.smtp_AUTH:
            raise refusals.unreadable("Line too long")
        try:
            text = argument.decode().strip(" \t")
        except UnicodeDecodeError:
            raise refusals.unreadable("The command is not valid UTF-8") from None
        if command is SubmissionSession.smtp_AUTH and self.transaction is not None:
            raise refusals.bad_sequence("AUTH is not allowed during a mail transaction")
        return command(self, text)

    async def smtp_HELO(self, hostname: str) -> None:
        await self._greet(hostname, extended=False)
        self.say(b"250 " + self.desk.hostname)

    async def smtp_EHLO(self, hostname: str) -> None:
        await self._greet(hostname, extended=True)
        self.say(self.desk.ehlo_reply(starttls=self.offers_tls, auth=self.offers_auth))

    async def _greet(self, hostname: str, *, extended: bool) -> None:
        if not _EHLO_NAME.fullmatch(hostname):
            raise refusals.syntax("A host name or an address literal must follow", "5.5.4")
        await self.end_transaction()
        self.helo_name, self.extended = hostname, extended
        self.traces.clear()

    async def smtp_STARTTLS(self, arg: str) -> None:
        if arg:
            raise refusals.syntax("STARTTLS takes no argument", "5.5.4")
        if self.is_tls:
            raise refusals.bad_sequence("TLS is in use already")
        if not self.offers_tls:
            raise Refused(Reason.SEQUENCE, 502, "5.5.1", "STARTTLS is not offered here")
        if self.discard_input():
            # RFC 3207 §6, RFC 2920 §3.1: nobody may add commands to what the client says after the handshake.
            raise Refused(
                Reason.SEQUENCE, 554, "5.5.1", "Commands after STARTTLS in the clear are refused", closes=True
            )
        self.say(b"220 2.0.0 Ready to start TLS")
        self.flush()
        await self.start_tls(self.desk.tls_context())
        await self.end_transaction()
        self.helo_name, self.extended = "", False
        self.traces.clear()

    def smtp_MAIL(self, arg: str) -> None:
        if not self.helo_name:
            raise refusals.bad_sequence("Say EHLO first")
        submitter = self.require_submitter()
        if self.transaction is not None:
            raise refusals.bad_sequence("A transaction is open already")
        if arg[:5].upper() != "FROM:":
            raise refusals.syntax("Syntax: MAIL FROM:<address>")
        if self.messages >= self.desk.limits.max_messages_per_connection:
            raise refusals.closing(Reason.CONNECTIONS, "4.7.0", "Too many messages on this connection; open another")
        path, rest = submission.mail_path(arg[5:])
        parameters = mail_parameters(rest)
        if parameters.size_bytes > self.desk.limits.max_message_bytes:
            raise refusals.too_large(self.desk.limits.max_message_bytes)
        reverse_path = submission.reverse_path(path, submitter, smtputf8=parameters.smtputf8)
        self.desk.check_room()
        self.desk.check_rate(submitter)
        self.transaction = OpenTransaction(submitter, reverse_path, parameters)
        self.say(b"250 2.1.0 Ok")

    def smtp_RCPT(self, arg: str) -> None:
        transaction = self.require_transaction()
        if transaction.content is not None:
            raise refusals.bad_sequence("BDAT has begun")
        if arg[:3].upper() != "TO:":
            raise refusals.syntax("Syntax: RCPT TO:<address>")
        path, rest = submission.rcpt_path(arg[3:])
        notify, orcpt = rcpt_parameters(rest)
        address = submission.forward_path(path, smtputf8=transaction.parameters.smtputf8)
        if len(transaction.recipients) >= self.desk.limits.max_recipients:
            raise Refused(Reason.RECIPIENTS, 452, "4.5.3", "Too many recipients; send to the others separately")
        local_part, _, domain = address.rpartition("@")
        transaction.recipients.setdefault((local_part, domain.lower()), Recipient(address, notify, orcpt))
        self.say(b"250 2.1.5 Ok")

    async def smtp_RSET(self, arg: str) -> None:
        if arg:
            raise refusals.syntax("RSET takes no argument", "5.5.4")
        await self.end_transaction()
        self.say(b"250 2.0.0 Ok")

    def smtp_NOOP(self, arg: str) -> None:
        self.say(b"250 2.0.0 Ok")

    def smtp_HELP(self, arg: str) -> None:
        self.say(b"214 2.0.0 Mail submission: RFC 6409, RFC 5321")

    def smtp_VRFY(self, arg: str) -> None:
        self.require_submitter()
        if not arg:
            raise refusals.syntax("Syntax: VRFY address", "5.5.4")
        self.say(b"252 2.5.1 Cannot verify; send a message to find out")

    async def smtp_EXPN(self, arg: str) -> None:
        raise Refused(Reason.SYNTAX, 502, "5.5.1", "EXPN is not offered")

    def smtp_QUIT(self, arg: str) -> None:
        if arg:
            raise refusals.syntax("QUIT takes no argument", "5.5.4")
        self.say(b"221 2.0.0 Bye")
        self.end()


_COMMANDS: Final[dict[bytes, Callable[[SubmissionSession, str], Awaitable[None] | None]]] = {
    b"HELO": SubmissionSession.smtp_HELO,
    b"EHLO": SubmissionSession.smtp_EHLO,
    b"STARTTLS": SubmissionSession.smtp_STARTTLS,
    b"AUTH": SubmissionSession.smtp_AUTH,
    b"MAIL": SubmissionSession.smtp_MAIL,
    b"RCPT": SubmissionSession.smtp_RCPT,
    b"DATA": SubmissionSession.smtp_DATA,
    b"BDAT": SubmissionSession.smtp_BDAT,
    b"RSET": SubmissionSession.smtp_RSET,
    b"NOOP": SubmissionSession.smtp_NOOP,
    b"HELP": SubmissionSession.smtp_HELP,
    b"VRFY": SubmissionSession.smtp_VRFY,
    b"EXPN": SubmissionSession.smtp_EXPN,
    b"QUIT": SubmissionSession.smtp_QUIT,
}
