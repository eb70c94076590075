"""What submission answers when it does not take something: each reply in one place, with why in a closed set of reasons.

Owns the replies of `semantics` "Submission" (RFC 5321 §4.2, RFC 3463, RFC 4954) and the exception that carries one. Decides
nothing itself; `submission`, `esmtp_parameters` and `headers_in` raise, the SMTP session answers.
"""

from __future__ import annotations

from enum import StrEnum

from postrail.core.replies import Reply


class Reason(StrEnum):
    """Why something was refused; the label of the refusal metric, so a closed set."""

    SYNTAX = "syntax"
    SEQUENCE = "sequence"
    PARAMETER = "parameter"
    AUTH_REQUIRED = "auth_required"
    TLS_REQUIRED = "tls_required"
    AUTH_FAILED = "auth_failed"
    ADDRESS = "address"
    SENDER = "sender"
    RELAY = "relay"
    STREAM = "stream"
    SIZE = "size"
    CONTENT = "content"
    LOOP = "loop"
    RECIPIENTS = "recipients"
    SIGNING_KEY = "signing_key"
    STORAGE = "storage"
    UNAVAILABLE = "unavailable"
    RATE = "rate"
    CONNECTIONS = "connections"
    ERRORS = "errors"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"


class Refused(Exception):
    """Something is not taken. `closes`: the session ends after the reply."""

    def __init__(self, reason: Reason, code: int, enhanced: str, text: str, *, closes: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.reply = Reply(code, enhanced, text)
        self.closes = closes


def syntax(text: str, enhanced: str = "5.5.2") -> Refused:
    """501: the command is known, its argument is malformed."""
    return Refused(Reason.SYNTAX, 501, enhanced, text)


def unreadable(text: str) -> Refused:
    """500: the line is no command."""
    return Refused(Reason.SYNTAX, 500, "5.5.2", text)


def bad_sequence(text: str) -> Refused:
    """503: not now."""
    return Refused(Reason.SEQUENCE, 503, "5.5.1", text)


def bad_parameter(text: str) -> Refused:
    """501: a parameter that is known has a wrong value."""
    return Refused(Reason.PARAMETER, 501, "5.5.4", text)


def unknown_parameter(name: str) -> Refused:
    """555: RFC 5321 §4.1.1.11."""
    return Refused(Reason.PARAMETER, 555, "5.5.4", f"Parameter {name} is not recognised")


def content(text: str) -> Refused:
    """554 at the end of the content: the message is not well-formed."""
    return Refused(Reason.CONTENT, 554, "5.6.0", text)


def too_large(max_bytes: int) -> Refused:
    """552: RFC 1870 §6.1."""
    return Refused(Reason.SIZE, 552, "5.3.4", f"Message is larger than the limit of {max_bytes} bytes")


def closing(reason: Reason, enhanced: str, text: str) -> Refused:
    """421: the session ends."""
    return Refused(reason, 421, enhanced, text, closes=True)


def auth_required(text: str = "Authentication required") -> Refused:
    """530: RFC 4954 §6."""
    return Refused(Reason.AUTH_REQUIRED, 530, "5.7.0", text)


def relay_denied(text: str) -> Refused:
    """550 5.7.1: not for this client."""
    return Refused(Reason.RELAY, 550, "5.7.1", text)


def sender_denied(text: str) -> Refused:
    """550 5.7.1: not as this sender."""
    return Refused(Reason.SENDER, 550, "5.7.1", text)


def storage_full() -> Refused:
    """452: the log cannot take more now."""
    return Refused(Reason.STORAGE, 452, "4.3.1", "Not enough room to store the message; try again later")


def log_unavailable() -> Refused:
    """451: the log cannot be reached."""
    return Refused(Reason.UNAVAILABLE, 451, "4.3.0", "The queue is unavailable; try again later")
