"""An SMTP and LMTP client as a state machine: bytes in, events out, commands in, bytes out.

Owns the order of commands and replies (RFC 5321, RFC 2920 pipelining, RFC 3207 STARTTLS, RFC 2033 LMTP). It does no I/O and
keeps no time: `postrail.sender.wire` moves the bytes. It does not judge replies: `verdicts` does. `smtp_commands` builds the
lines, `smtp_content` the content, `reply_parser` cuts the replies.

Use: `send(command)` gives bytes to write; `receive(data)` takes what came; then `next_event()` until it gives None, and after
it `take_output()`, which gives what the machine itself goes on with (the next command of a transaction without pipelining,
HELO after a refused EHLO, the lone dot after a pointless 354).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from postrail.core.replies import Reply
from postrail.core.reply_parser import ParsedReply, RemoteProtocolError, ReplyParser
from postrail.core.smtp_commands import (
    NO_CAPABILITIES,
    Capabilities,
    LocalProtocolError,
    Transaction,
    mail_line,
    parse_capabilities,
    rcpt_line,
)
from postrail.core.verdicts import Stage

__all__ = ["LocalProtocolError", "RemoteProtocolError", "SmtpClient", "State"]


class State(Enum):
    """Where the dialogue stands."""

    GREETING = auto()
    """Nothing was said yet; the server speaks first."""
    GREETED = auto()
    HELLO = auto()
    READY = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()
    """TLS is being negotiated; whatever arrives in clear is discarded."""
    ENVELOPE = auto()
    CONTENT = auto()
    OUTCOME = auto()
    """The final dot was sent."""
    ABANDONED = auto()
    """A lone dot was sent, because the server wanted content and had taken no recipient."""
    QUITTING = auto()
    CLOSED = auto()


class _Step(Enum):
    """What moves the machine: the upper ones are ours, the lower ones the server's."""

    HELLO = auto()
    STARTTLS = auto()
    SECURED = auto()
    BEGIN = auto()
    END = auto()
    QUIT = auto()

    ACCEPTED = auto()
    REFUSED = auto()
    CONTENT_WANTED = auto()
    CONTENT_POINTLESS = auto()
    OVER = auto()
    LOST = auto()


_TABLE: dict[tuple[State, _Step], State] = {
    (State.GREETING, _Step.ACCEPTED): State.GREETED,
    (State.GREETING, _Step.REFUSED): State.CLOSED,
    (State.GREETED, _Step.HELLO): State.HELLO,
    (State.HELLO, _Step.ACCEPTED): State.READY,
    (State.HELLO, _Step.REFUSED): State.CLOSED,
    (State.READY, _Step.STARTTLS): State.STARTTLS,
    (State.STARTTLS, _Step.ACCEPTED): State.HANDSHAKE,
    (State.STARTTLS, _Step.REFUSED): State.READY,
    (State.HANDSHAKE, _Step.SECURED): State.GREETED,
    (State.READY, _Step.BEGIN): State.ENVELOPE,
    (State.ENVELOPE, _Step.CONTENT_WANTED): State.CONTENT,
    (State.ENVELOPE, _Step.CONTENT_POINTLESS): State.ABANDONED,
    (State.ENVELOPE, _Step.OVER): State.READY,
    (State.CONTENT, _Step.END): State.OUTCOME,
    (State.OUTCOME, _Step.OVER): State.READY,
    (State.ABANDONED, _Step.OVER): State.READY,
    (State.READY, _Step.QUIT): State.QUITTING,
    (State.GREETED, _Step.QUIT): State.QUITTING,
    (State.QUITTING, _Step.ACCEPTED): State.CLOSED,
    (State.QUITTING, _Step.REFUSED): State.CLOSED,
    **{(state, _Step.LOST): State.CLOSED for state in State},
}


class _Await(Enum):
    """The command that the next reply answers."""

    GREETING = Stage.GREETING
    EHLO = Stage.EHLO
    HELO = "helo"
    STARTTLS = Stage.STARTTLS
    MAIL = Stage.MAIL
    RCPT = Stage.RCPT
    DATA = Stage.DATA
    CONTENT = Stage.CONTENT
    RSET = "rset"
    QUIT = "quit"


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
        self._expected: deque[_Await] = deque((_Await.GREETING,))
        self._output: list[bytes] = []
        self._lines: deque[tuple[_Await, bytes]] = deque()  # commands that wait for the answer to the one before
        self._name = ""
        self._needs_reset = False
        self._outcomes: list[Outcome | None] = []
        self._accepted: list[int] = []
        self._recipient = 0
        self._mail_refused = False

    @property
    def awaits(self) -> Stage | None:
        """What the next reply answers, for the time-out; None when none is expected, or for RSET and QUIT."""
        if not self._expected:
            return None
        first = self._expected[0]
        if first is _Await.HELO:
            return Stage.EHLO
        return first.value if isinstance(first.value, Stage) else None

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
            self._move(_Step.HELLO, LocalProtocolError)
            self._name = name
            self._expected.append(_Await.EHLO)
            return f"{'LHLO' if self._lmtp else 'EHLO'} {self._name}\r\n".encode()
        if isinstance(command, StartTls):
            if not self.capabilities.starttls:
                raise LocalProtocolError("the server does not offer STARTTLS")
            self._move(_Step.STARTTLS, LocalProtocolError)
            self._expected.append(_Await.STARTTLS)
            return b"STARTTLS\r\n"
        self._move(_Step.QUIT, LocalProtocolError)
        self._expected.append(_Await.QUIT)
        return b"QUIT\r\n"

    def secured(self) -> None:
        """TLS is established: all that was learnt in clear is forgotten (RFC 3207 §4.2); `Hello` is next."""
        self._move(_Step.SECURED, LocalProtocolError)
        self._parser.discard()
        self.capabilities = NO_CAPABILITIES

    def end_content(self) -> None:
        """The final dot is about to be written: from here on a lost connection is ambiguous."""
        self._move(_Step.END, LocalProtocolError)
        self._expected.extend([_Await.CONTENT] * (len(self._accepted) if self._lmtp else 1))

    def lost(self) -> TransactionOver | None:
        """The connection is gone, or is given up: what is known of the transaction under way; None when there is none."""
        under_way = self.state in (State.ENVELOPE, State.CONTENT, State.OUTCOME, State.ABANDONED)
        ambiguous = self.state is State.OUTCOME
        self._move(_Step.LOST, LocalProtocolError)
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
        if awaited is _Await.RCPT:
            event = self._rcpt(parsed)
        elif awaited is _Await.CONTENT:
            event = self._content(parsed.reply())
        elif awaited is _Await.DATA:
            event = self._data(parsed.reply())
        elif awaited is _Await.MAIL:
            event = self._mail(parsed)
        else:
            event = self._session(awaited, parsed)
        if event is None and self._lines and not self._expected:
            self._next_line()
        return event

    def _session(self, awaited: _Await, parsed: ParsedReply) -> Event | None:
        accepted = 200 <= parsed.code < 300
        reply = parsed.reply()
        match awaited:
            case _Await.GREETING if accepted:
                self._move(_Step.ACCEPTED, RemoteProtocolError)
                return Greeted(reply)
            case _Await.EHLO | _Await.HELO if accepted:
                self._move(_Step.ACCEPTED, RemoteProtocolError)
                self.capabilities = parse_capabilities(parsed.lines) if awaited is _Await.EHLO else NO_CAPABILITIES
                return HelloAccepted(self.capabilities)
            case _Await.EHLO if not self._lmtp and parsed.code >= 500:
                self._expected.append(_Await.HELO)
                self._output.append(f"HELO {self._name}\r\n".encode())
                return None
            case _Await.GREETING | _Await.EHLO | _Await.HELO:
                self._move(_Step.REFUSED, RemoteProtocolError)
                return SessionRefused(Stage.GREETING if awaited is _Await.GREETING else Stage.EHLO, reply)
            case _Await.STARTTLS:
                self._move(_Step.ACCEPTED if accepted else _Step.REFUSED, RemoteProtocolError)
                self._parser.discard()
                return StartTlsAccepted() if accepted else StartTlsRefused(reply)
            case _Await.QUIT:
                self._move(_Step.ACCEPTED if accepted else _Step.REFUSED, RemoteProtocolError)
                return Goodbye(reply)
        return None  # RSET: where it failed, MAIL will too

    def _begin(self, transaction: Transaction) -> bytes:
        peer = self.capabilities
        lines = [(_Await.MAIL, mail_line(transaction, peer))]
        lines += [(_Await.RCPT, rcpt_line(recipient, peer)) for recipient in transaction.recipients]
        lines.append((_Await.DATA, b"DATA\r\n"))
        if self._needs_reset:
            lines.insert(0, (_Await.RSET, b"RSET\r\n"))
        self._move(_Step.BEGIN, LocalProtocolError)
        self._needs_reset = False
        self._outcomes = [None] * len(transaction.recipients)
        self._accepted.clear()
        self._recipient = 0
        self._mail_refused = False
        if peer.pipelining:
            self._expected.extend([awaited for awaited, _ in lines])
            return b"".join([line for _, line in lines])
        self._lines.extend(lines)
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
                self._move(_Step.CONTENT_WANTED, RemoteProtocolError)
                return ContentWanted()
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
        self._move(_Step.CONTENT_POINTLESS, RemoteProtocolError)
        self._expected.append(_Await.CONTENT)
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
        self._move(_Step.OVER, RemoteProtocolError)
        self._lines.clear()
        return TransactionOver(tuple(self._outcomes))

    def _closed_over(self) -> TransactionOver:
        """The transaction is over, and the session with it."""
        self._move(_Step.LOST, RemoteProtocolError)
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
        self._move(_Step.LOST, RemoteProtocolError)
        if state in (State.READY, State.QUITTING):
            return Goodbye(reply)
        return SessionRefused(stage or Stage.GREETING, reply)

    def _move(self, step: _Step, error: type[LocalProtocolError | RemoteProtocolError]) -> None:
        state = _TABLE.get((self.state, step))
        if state is None:
            raise error(f"{step.name} is not possible in the state {self.state.name}")
        self.state = state


def _safe(text: str) -> str:
    if any(character in "\r\n\x00 " for character in text):
        raise LocalProtocolError(f"a name that cannot be sent: {text!r}")
    return text
