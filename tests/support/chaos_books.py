"""The books of a run with crashes: the ledger, and which copies a crash explains.

A run is divided into lives: from one start of the system to its end. In one life nobody gets a second copy, and what the log
held as delivered when a life ended is never sent in a later one; every other repeat is one that a crash between the final
dot and the durable outcome explains. Owns that rule and no process. Neighbours: `chaos_world` reads the events from the files
that a crash has left, the demonstration's ledger counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from postrail.demo.ledger import Ledger, body_digest, ledger_id_of
from postrail.demo.receivers import Received


@dataclass(slots=True)
class Books:
    """What was told by the injector, the receivers and the files.

    Attributes:
        life: the number of the current life of the system.
        crashes: how many lives ended with kill -9.
        in_flight: recipients whose copy was taken in a life that crashed before the log held that: each may be repeated.
        malformed: ids of messages that came with a bare CR or LF.
    """

    ledger: Ledger = field(default_factory=Ledger)
    life: int = 0
    crashes: int = 0
    in_flight: int = 0
    malformed: list[str] = field(default_factory=list)
    _copies: dict[str, list[int]] = field(default_factory=dict)
    _recorded: dict[str, int] = field(default_factory=dict)

    def received(self, message: Received) -> None:
        """A receiver has taken a message; every recipient belongs to one message only."""
        ledger_id = ledger_id_of(message.content)
        if ledger_id is None:
            return
        if message.has_bare_line_ends:
            self.malformed.append(ledger_id)
        digest = body_digest(message.content)
        for recipient in message.recipients:
            self.ledger.received(ledger_id, recipient, digest)
            self._copies.setdefault(recipient, []).append(self.life)

    def ended(self, recorded: Iterable[str], *, crashed: bool) -> None:
        """A life is over; `recorded` are recipients that the log holds as delivered."""
        for recipient in recorded:
            self._recorded.setdefault(recipient, self.life)
        self.crashes += crashed
        unrecorded = self._copies.keys() - self._recorded.keys()
        self.in_flight += sum(self._copies[recipient][-1] == self.life for recipient in unrecorded)
        self.life += 1

    def copies(self, recipient: str) -> int:
        """How many copies a recipient got."""
        return len(self._copies.get(recipient, ()))

    def repeats(self) -> int:
        """Copies beyond the first, of all recipients."""
        return sum(len(lives) - 1 for lives in self._copies.values())

    def unexplained(self) -> list[str]:
        """Repeats that no crash between the final dot and the durable outcome explains, a line each."""
        found = []
        for recipient, lives in self._copies.items():
            if len(set(lives)) < len(lives):
                found.append(f"{recipient}: twice in one life: {lives}")
            recorded = self._recorded.get(recipient)
            if recorded is not None and lives[-1] > recorded:
                found.append(f"{recipient}: recorded as delivered in life {recorded}, sent again: {lives}")
        return found
