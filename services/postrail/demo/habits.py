"""How real receivers behave, as the demonstration's simulated ones do.

Owns one Behaviour with the habits that senders must live with: greylisting, rates, messages per connection, unknown and full
mailboxes, hours of absence. Time is a clock that starts with the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from postrail.demo.receivers import Behaviour, Session

UNKNOWN_PREFIX = "nobody"
FULL_PREFIX = "full"


@dataclass(slots=True)
class Habits(Behaviour):
    """What one receiver does. Zero switches a habit off.

    Attributes:
        clock: seconds since the run began.
        greylist_seconds: a recipient is refused until so long after its first attempt.
        messages_per_connection: then 421 at MAIL.
        messages_per_second: more are deferred at MAIL.
        full_until: until then mailboxes whose name starts with `full` take nothing.
        away: from when until when the greeting is 421.
    """

    clock: Callable[[], float]
    greylist_seconds: float = 0.0
    messages_per_connection: int = 0
    messages_per_second: int = 0
    full_until: float = 0.0
    away: tuple[float, float] = (0.0, 0.0)
    _first_seen: dict[str, float] = field(default_factory=dict)
    _second: int = -1
    _in_second: int = 0

    def greeting(self, session: Session) -> str | None:
        start, end = self.away
        if start <= self.clock() < end:
            return "421 4.3.2 Service not available, closing transmission channel"
        return None

    def mail(self, session: Session, reverse_path: str) -> str | None:
        if self.messages_per_connection and session.messages >= self.messages_per_connection:
            return "421 4.7.0 Too many messages in this connection, closing"
        if self.messages_per_second and self._counts_too_many():
            return f"451 4.7.1 [TSS04] Messages from {session.client_address} temporarily deferred, slow down"
        return None

    def rcpt(self, session: Session, address: str) -> str | None:
        if address.startswith(UNKNOWN_PREFIX):
            return f"550 5.1.1 <{address}>: the mailbox that you tried to reach does not exist"
        if self.full_until and address.startswith(FULL_PREFIX) and self.clock() < self.full_until:
            return f"452 4.2.2 <{address}>: the mailbox is full, try again later"
        if self.greylist_seconds:
            now = self.clock()
            if now < self._first_seen.setdefault(address, now) + self.greylist_seconds:
                return "450 4.7.1 Greylisted, please try again later"
        return None

    def _counts_too_many(self) -> bool:
        second = int(self.clock())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second > self.messages_per_second
