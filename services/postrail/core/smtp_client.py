"""An SMTP and LMTP client as a state machine: bytes in, events out, commands in, bytes out.

Owns the order of commands and replies (RFC 5321, RFC 2920 pipelining, RFC 3207 STARTTLS, RFC 2033 LMTP). It does no I/O and
keeps no time: `postrail.sender.wire` moves the bytes. It does not judge replies: `verdicts` does. `smtp_states` has the
table, `smtp_events` the words; `smtp_commands` builds the lines, `smtp_content` the content, `reply_parser` cuts the replies.

Use: `send(command)` gives bytes to write; `receive(data)` takes what came; then `next_event()` until it gives None, and after
it `take_output()`, which gives what the machine itself goes on with (the next command of a transaction without pipelining,
HELO after a refused EHLO, the lone dot after a pointless 354).
"""

from __future__ import annotations

from collections import deque

from postrail.core.replies import Reply
from postrail.core.reply_parser import ParsedReply, RemoteProtocolError, ReplyParser
from postrail.core.smtp_commands import (
    NO_CAPABILITIES,
    LocalProtocolError,
    Transaction,
    mail_line,
    parse_capabilities,
    rcpt_line,
)
from postrail.core.smtp_events import (
    Command,
    ContentWanted,
    Event,
    Goodbye,
    Greeted,
    Hello,
    HelloAccepted,
    Outcome,
    SessionRefused,
    StartTls,
    StartTlsAccepted,
    StartTlsRefused,
    TransactionOver,
)
from postrail.core.smtp_states import NEXT, STAGES, Await, State, Step
from postrail.core.verdicts import Stage

_CONTENT_WANTED = ContentWanted()


class SmtpClient:
    """One session with one server."""

    __slots__ = (
        "_accepted",
        "_expected",
        "_lines",
        "_lmtp",
        "_mail_refused",
        "_name",
        "_needs_reset",
        "_outcomes",
        "_output",
        "_parser",
        "_recipient",
        "capabilities",
        "state",
    )

    def __init__(self, *, lmtp: bool = False) -> None:
        self.state = State.GREETING
        self.capabilities = NO_CAPABILITIES
        self._lmtp = lmtp
        self._parser = ReplyParser()
        self._expected: deque[Await] = deque((Await.GREETING,))
        self._output: list[bytes] = []
        self._lines: deque[tuple[Await, bytes]] = deque()  # commands that wait for the answer to the one before
        self._name = ""
        self._needs_reset = False
        self._outcomes: list[Outcome | None] = []
        self._accepted: list[int] = []
        self._recipient = 0
        self._mail_refused = False

    @property
    def awaits(self) -> Stage | None:
        """What the next reply answers, for the time-out; None when none is expected, or for RSET and QUIT."""
        return STAGES.get(self._expected[0]) if self._expected else None

    @property
    def pending(self) -> int:
        """How many replies are awaited."""
        return len(self._expected)

    def send(self, command: Command) -> bytes:
        """The bytes of a command.

        Raises:
            LocalProtocolError: it is not its time, or a value holds what must not be sent. The state is unchanged.
        """
        if isinstance(command, Transaction):
            return self._begin(command)
        if isinstance(command, Hello):
            name = _safe(command.name)
            self._move(Step.HELLO, LocalProtocolError)
            self._name = name
            self._expected.append(Await.EHLO)
            return f"{'LHLO' if self._lmtp else 'EHLO'} {self._name}\r\n".encode()
        if isinstance(command, StartTls):
            if not self.capabilities.starttls:
                raise LocalProtocolError("the server does not offer STARTTLS")
            self._move(Step.STARTTLS, LocalProtocolError)
            self._expected.append(Await.STARTTLS)
            return b"STARTTLS\r\n"
        self._move(Step.QUIT, LocalProtocolError)
        self._expected.append(Await.QUIT)
        return b"QUIT\r\n"

    def secured(self) -> None:
        """TLS is established: all that was learnt in clear is forgotten (RFC 3207 §4.2); `Hello` is next."""
        self._move(Step.SECURED, LocalProtocolError)
        self._parser.discard()
        self.capabilities = NO_CAPABILITIES

    def end_content(self) -> None:
        """The final dot is about to be written: from here on a lost connection is ambiguous."""
        self._move(Step.END, LocalProtocolError)
        self._expected.extend([Await.CONTENT] * (len(self._accepted) if self._lmtp else 1))

    def lost(self) -> TransactionOver | None:
        """The connection is gone, or is given up: what is known of the transaction under way; None when there is none."""
        under_way = self.state in (State.ENVELOPE, State.CONTENT, State.OUTCOME, State.ABANDONED)
        ambiguous = self.state is State.OUTCOME
        self._move(Step.LOST, LocalProtocolError)
        self._expected.clear()
        if not under_way:
            return None
        return TransactionOver(tuple(self._outcomes), ambiguous and None in self._outcomes)

    def receive(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self.state is not State.HANDSHAKE:
            self._parser.receive(data)

    def take_output(self) -> bytes:
        """What is to be written now without being asked for; b"" when nothing is."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def next_event(self) -> Event | None:
        """What the server's bytes mean; None when more are needed.

        Raises:
            RemoteProtocolError: garbage, or a reply to nothing. Call `lost()` and close.
        """
        while self.state not in (State.HANDSHAKE, State.CLOSED):
            parsed = self._parser.next_reply()
            if parsed is None:
                return None
            event = self._take(parsed)
            if event is not None:
                return event
        return None

    def _take(self, parsed: ParsedReply) -> Event | None:
        if parsed.code == 421:
            return self._closing(parsed.reply())
        if not self._expected:
            if self.state is State.CONTENT:
                return self._early_end(parsed.reply())
            raise RemoteProtocolError(f"an answer to nothing: {parsed.code} {parsed.lines[0][:60]}")
        awaited = self._expected.popleft()
        if awaited is Await.RCPT:
            event = self._rcpt(parsed)
        elif awaited is Await.CONTENT:
            event = self._content(parsed.reply())
        elif awaited is Await.DATA:
            event = self._data(parsed.reply())
        elif awaited is Await.MAIL:
            event = self._mail(parsed)
        else:
            event = self._session(awaited, parsed)
        if event is None and self._lines and not self._expected:
            self._next_line()
        return event

    def _session(self, awaited: Await, parsed: ParsedReply) -> Event | None:
        accepted = 200 <= parsed.code < 300
        reply = parsed.reply()
        match awaited:
            case Await.GREETING if accepted:
                self._move(Step.ACCEPTED, RemoteProtocolError)
                return Greeted(reply)
            case Await.EHLO | Await.HELO if accepted:
                self._move(Step.ACCEPTED, RemoteProtocolError)
                self.capabilities = parse_capabilities(parsed.lines) if awaited is Await.EHLO else NO_CAPABILITIES
                return HelloAccepted(self.capabilities)
            case Await.EHLO if not self._lmtp and parsed.code >= 500:
                self._expected.append(Await.HELO)
                self._output.append(f"HELO {self._name}\r\n".encode())
                return None
            case Await.GREETING | Await.EHLO | Await.HELO:
                self._move(Step.REFUSED, RemoteProtocolError)
                return SessionRefused(Stage.GREETING if awaited is Await.GREETING else Stage.EHLO, reply)
            case Await.STARTTLS:
                self._move(Step.ACCEPTED if accepted else Step.REFUSED, RemoteProtocolError)
                self._parser.discard()
                return StartTlsAccepted() if accepted else StartTlsRefused(reply)
            case Await.QUIT:
                self._move(Step.ACCEPTED if accepted else Step.REFUSED, RemoteProtocolError)
                return Goodbye(reply)
        return None  # RSET: where it failed, MAIL will too

    def _begin(self, transaction: Transaction) -> bytes:
        peer = self.capabilities
        lines = [mail_line(transaction, peer)]
        lines += [rcpt_line(recipient, peer) for recipient in transaction.recipients]
        lines.append(b"DATA\r\n")
        awaited = [Await.MAIL, *[Await.RCPT] * len(transaction.recipients), Await.DATA]
        if self._needs_reset:
            lines.insert(0, b"RSET\r\n")
            awaited.insert(0, Await.RSET)
        self._move(Step.BEGIN, LocalProtocolError)
        self._needs_reset = False
        self._outcomes = [None] * len(transaction.recipients)
        self._accepted.clear()
        self._recipient = 0
        self._mail_refused = False
        if peer.pipelining:
            self._expected.extend(awaited)
            return b"".join(lines)
        self._lines.extend(zip(awaited, lines, strict=True))
        self._next_line()
        return self.take_output()

    def _next_line(self) -> None:
        awaited, line = self._lines.popleft()
        self._expected.append(awaited)
        self._output.append(line)

    def _mail(self, parsed: ParsedReply) -> Event | None:
        if 200 <= parsed.code < 300:
            return None
        self._mail_refused = True
        self._outcomes = [Outcome(Stage.MAIL, parsed.reply())] * len(self._outcomes)
        return None if self._expected else self._over()

    def _rcpt(self, parsed: ParsedReply) -> Event | None:
        index = self._recipient
        self._recipient += 1
        if self._mail_refused:
            return None
        if 200 <= parsed.code < 300:
            self._accepted.append(index)
        else:
            self._outcomes[index] = Outcome(Stage.RCPT, parsed.reply())
        if not self._accepted and not self._expected and self._recipient == len(self._outcomes):
            self._needs_reset = True
            return self._over()
        return None

    def _data(self, reply: Reply) -> Event | None:
        if 300 <= reply.code < 400:
            if self._accepted:
                self._move(Step.CONTENT_WANTED, RemoteProtocolError)
                return _CONTENT_WANTED
            return self._abandon()
        for index in self._accepted:
            self._outcomes[index] = Outcome(Stage.DATA, reply)
        self._needs_reset = not self._mail_refused
        if reply.code < 300:
            return self._closed_over()
        return self._over()

    def _abandon(self) -> Event | None:
        """RFC 2920 §3.1: a server may want content although it took no recipient. It gets none."""
        if self._lmtp:
            return self._closed_over()  # it would answer the dot once for each recipient taken: never
        self._move(Step.CONTENT_POINTLESS, RemoteProtocolError)
        self._expected.append(Await.CONTENT)
        self._output.append(b".\r\n")
        return None

    def _content(self, reply: Reply) -> Event | None:
        if self.state is State.ABANDONED:
            return self._over()
        if self._lmtp:
            self._outcomes[self._accepted[len(self._accepted) - len(self._expected) - 1]] = Outcome(
                Stage.CONTENT, reply
            )
            return None if self._expected else self._over()
        for index in self._accepted:
            self._outcomes[index] = Outcome(Stage.CONTENT, reply)
        return self._over()

    def _over(self) -> TransactionOver:
        self._move(Step.OVER, RemoteProtocolError)
        self._lines.clear()
        return TransactionOver(tuple(self._outcomes))

    def _closed_over(self) -> TransactionOver:
        """The transaction is over, and the session with it."""
        self._move(Step.LOST, RemoteProtocolError)
        self._expected.clear()
        return TransactionOver(tuple(self._outcomes))

    def _early_end(self, reply: Reply) -> Event:
        """A reply before the content was sent: it is the outcome, and the session cannot go on."""
        if reply.code < 400:
            raise RemoteProtocolError(f"an answer to content that was not sent: {reply}")
        for index in self._accepted:
            self._outcomes[index] = Outcome(Stage.CONTENT, reply)
        return self._closed_over()

    def _closing(self, reply: Reply) -> Event:
        """421: the server closes, whatever it was asked (RFC 5321 §3.8). It speaks for all that is undecided."""
        state, stage = self.state, self.awaits
        if state in (State.ENVELOPE, State.CONTENT, State.OUTCOME, State.ABANDONED):
            outcome = Outcome(stage or (Stage.CONTENT if state is State.CONTENT else Stage.MAIL), reply)
            self._outcomes = [known or outcome for known in self._outcomes]
            return self._closed_over()
        self._move(Step.LOST, RemoteProtocolError)
        if state in (State.READY, State.QUITTING):
            return Goodbye(reply)
        return SessionRefused(stage or Stage.GREETING, reply)

    def _move(self, step: Step, error: type[LocalProtocolError | RemoteProtocolError]) -> None:
        state = NEXT.get((self.state, step))
        if state is None:
            raise error(f"{step.name} is not possible in the state {self.state.name}")
        self.state = state


def _safe(text: str) -> str:
    if any(character in "\r\n\x00 " for character in text):
        raise LocalProtocolError(f"a name that cannot be sent: {text!r}")
    return text
