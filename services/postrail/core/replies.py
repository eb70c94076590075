"""Replies of SMTP servers, ours and others', and the failures that carry them.

Owns the `Reply` value, the four scopes of a failure, and the two failure types. The rules that turn a reply into a
failure live in `postrail.core.verdicts`.
"""

from __future__ import annotations

from enum import StrEnum

from postrail.core.value import value


class Scope(StrEnum):
    """What a failure says something about (the widest thing that is known to be affected)."""

    SESSION = "session"
    SITE = "site"
    MESSAGE = "message"
    RECIPIENT = "recipient"


@value
class Reply:
    """One SMTP reply: `code` as in RFC 5321 §4.2, `enhanced` as in RFC 3463 ("" where absent), `text` on one line."""

    code: int
    enhanced: str
    text: str

    @property
    def is_positive(self) -> bool:
        """Whether the reply is 2yz or 3yz."""
        return self.code < 400

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"


@value
class TemporaryFailure:
    """Try again later. `internal` marks texts that Postrail wrote itself: no automation rule may match them."""

    reply: Reply
    scope: Scope
    internal: bool = False


@value
class PermanentFailure:
    """Do not try again; tell the sender. `internal` as for TemporaryFailure."""

    reply: Reply
    scope: Scope
    internal: bool = False


Failure = TemporaryFailure | PermanentFailure
