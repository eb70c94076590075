"""Where an SMTP client's dialogue stands, what moves it, and which command each reply answers.

Owns the table of transitions; what is not in it is not possible. `smtp_client` walks it. Numbers, because each message looks
several of them up.
"""

from __future__ import annotations

from enum import IntEnum, auto

from postrail.core.verdicts import Stage


class State(IntEnum):
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


class Step(IntEnum):
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


NEXT: dict[tuple[State, Step], State] = {
    (State.GREETING, Step.ACCEPTED): State.GREETED,
    (State.GREETING, Step.REFUSED): State.CLOSED,
    (State.GREETED, Step.HELLO): State.HELLO,
    (State.HELLO, Step.ACCEPTED): State.READY,
    (State.HELLO, Step.REFUSED): State.CLOSED,
    (State.READY, Step.STARTTLS): State.STARTTLS,
    (State.STARTTLS, Step.ACCEPTED): State.HANDSHAKE,
    (State.STARTTLS, Step.REFUSED): State.READY,
    (State.HANDSHAKE, Step.SECURED): State.GREETED,
    (State.READY, Step.BEGIN): State.ENVELOPE,
    (State.ENVELOPE, Step.CONTENT_WANTED): State.CONTENT,
    (State.ENVELOPE, Step.CONTENT_POINTLESS): State.ABANDONED,
    (State.ENVELOPE, Step.OVER): State.READY,
    (State.CONTENT, Step.END): State.OUTCOME,
    (State.OUTCOME, Step.OVER): State.READY,
    (State.ABANDONED, Step.OVER): State.READY,
    (State.READY, Step.QUIT): State.QUITTING,
    (State.GREETED, Step.QUIT): State.QUITTING,
    (State.QUITTING, Step.ACCEPTED): State.CLOSED,
    (State.QUITTING, Step.REFUSED): State.CLOSED,
    **{(state, Step.LOST): State.CLOSED for state in State},
}


class Await(IntEnum):
    """The command that the next reply answers."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    CONTENT = auto()
    RSET = auto()
    QUIT = auto()


STAGES: dict[Await, Stage] = {
    Await.GREETING: Stage.GREETING,
    Await.EHLO: Stage.EHLO,
    Await.HELO: Stage.EHLO,
    Await.STARTTLS: Stage.STARTTLS,
    Await.MAIL: Stage.MAIL,
    Await.RCPT: Stage.RCPT,
    Await.DATA: Stage.DATA,
    Await.CONTENT: Stage.CONTENT,
}
"""The stage of each command; RSET and QUIT have none."""
