"""The ledger: what was accepted from submitters against what receivers recorded, kept outside the system under test.

Owns the count of losses, duplicates and alterations. It never asks the system how it fared: it is told what got a 250, what
arrived where, and which bounces came back. Neighbours: `receivers` and `submitter` tell it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from hashlib import sha256
from typing import NamedTuple

FIELD = b"X-Ledger-Id"
"""The header field by which a message is known again wherever it shows up."""


class Entry(NamedTuple):
    """One message to one recipient (address in lower case)."""

    ledger_id: str
    recipient: str


class Bounce(NamedTuple):
    """A recipient that a notification reports as failed, with the reason it gives."""

    entry: Entry
    status: str
    diagnostic: str


@dataclass(frozen=True, slots=True)
class Balance:
    """How the books stand.

    Attributes:
        accepted: (message, recipient) pairs that got a 250.
        delivered: of those, received at least once.
        bounced: of those, not received, and reported to the sender as failed.
        queued: of those, neither, but still visible in the queue.
        lost: of those, none of all that: must be empty.
        duplicates: copies beyond the first, of accepted pairs.
        altered: copies whose body was not what was submitted.
        unaccepted_repeats: copies beyond the first of pairs that never got a 250 (one copy is allowed).
        bounced_and_delivered: pairs that were both: a false bounce.
    """

    accepted: int
    delivered: int
    bounced: int
    queued: int
    lost: tuple[Entry, ...]
    duplicates: int
    altered: int
    unaccepted_repeats: int
    bounced_and_delivered: int

    @property
    def is_even(self) -> bool:
        """Nothing lost, altered or falsely bounced, nothing twice."""
        return not (
            self.lost or self.duplicates or self.altered or self.unaccepted_repeats or self.bounced_and_delivered
        )


@dataclass(slots=True)
class Ledger:
    """The books of one run. For one thread."""

    _digests: dict[str, bytes] = field(default_factory=dict)
    _accepted: set[Entry] = field(default_factory=set)
    _copies: Counter[Entry] = field(default_factory=Counter)
    _bounces: dict[Entry, Bounce] = field(default_factory=dict)
    _open: set[Entry] = field(default_factory=set)
    _altered: int = 0

    def offered(self, ledger_id: str, body_sha256: bytes) -> None:
        """A message is about to be submitted; whether it is accepted is not known yet."""
        self._digests[ledger_id] = body_sha256

    def submitted(self, ledger_id: str, recipient: str, body_sha256: bytes) -> None:
        """A message got its 250 for this recipient."""
        entry = Entry(ledger_id, recipient.lower())
        self._digests[ledger_id] = body_sha256
        self._accepted.add(entry)
        if not self._copies[entry] and entry not in self._bounces:
            self._open.add(entry)

    def received(self, ledger_id: str, recipient: str, body_sha256: bytes) -> None:
        """A receiver answered 250 to a message for this recipient (or took it and lost the connection)."""
        entry = Entry(ledger_id, recipient.lower())
        self._copies[entry] += 1
        self._open.discard(entry)
        if self._digests.get(ledger_id, body_sha256) != body_sha256:
            self._altered += 1

    def bounced(self, bounce: Bounce) -> None:
        """The sender was told that this recipient failed."""
        self._bounces[bounce.entry] = bounce
        self._open.discard(bounce.entry)

    @property
    def open_count(self) -> int:
        """Accepted pairs of which nothing was heard yet."""
        return len(self._open)

    @property
    def open_entries(self) -> frozenset[Entry]:
        """Accepted pairs of which nothing was heard yet."""
        return frozenset(self._open)

    @property
    def accepted_count(self) -> int:
        return len(self._accepted)

    @property
    def bounces(self) -> Collection[Bounce]:
        """What the sender was told."""
        return self._bounces.values()

    def copies(self, ledger_id: str, recipient: str) -> int:
        """How many copies the recipient got."""
        return self._copies[Entry(ledger_id, recipient.lower())]

    def balance(self, queued: Collection[Entry] = ()) -> Balance:
        """The books, with what the queue still shows."""
        visible = {Entry(entry.ledger_id, entry.recipient.lower()) for entry in queued}
        received = {entry for entry, copies in self._copies.items() if copies}
        delivered = self._accepted & received
        bounced = (self._accepted & self._bounces.keys()) - delivered
        waiting = (self._accepted & visible) - delivered - bounced
        return Balance(
            accepted=len(self._accepted),
            delivered=len(delivered),
            bounced=len(bounced),
            queued=len(waiting),
            lost=tuple(sorted(self._accepted - delivered - bounced - waiting)),
            duplicates=sum(self._copies[entry] - 1 for entry in delivered),
            altered=self._altered,
            unaccepted_repeats=sum(self._copies[entry] - 1 for entry in received - self._accepted),
            bounced_and_delivered=len(delivered & self._bounces.keys()),
        )


def ledger_id_of(header_block: bytes) -> str | None:
    """The id in a header block (or a whole message); None for mail that is not in the ledger."""
    start = header_block.find(b"\n" + FIELD + b":") + 1
    if not start and not header_block.startswith(FIELD + b":"):
        return None
    value = header_block[start + len(FIELD) + 1 :].split(b"\r\n", 1)[0]
    return value.strip().decode("ascii", "replace")


def body_digest(content: bytes) -> bytes:
    """SHA-256 of what follows the header block."""
    return sha256(content.partition(b"\r\n\r\n")[2]).digest()


def bounces_in(content: bytes) -> list[Bounce]:
    """The failed recipients that a delivery status notification names; [] for any other message (RFC 3464)."""
    message = message_from_bytes(content)
    if message.get_content_type() != "multipart/report":
        return []
    payload = message.get_payload()
    parts = [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []
    if len(parts) < 3:
        return []
    returned = parts[2].get_payload(decode=True)
    ledger_id = ledger_id_of(returned if isinstance(returned, bytes) else parts[2].as_bytes())
    groups = parts[1].get_payload()
    if ledger_id is None or not isinstance(groups, list):
        return []
    return [
        _bounce(ledger_id, group)
        for group in groups
        if isinstance(group, Message) and group.get("Action", "").strip().lower() == "failed"
    ]


def _bounce(ledger_id: str, group: Message) -> Bounce:
    address = str(group["Final-Recipient"]).partition(";")[2].strip().lower()
    diagnostic = " ".join(str(group.get("Diagnostic-Code", "")).partition(";")[2].split())
    return Bounce(Entry(ledger_id, address), str(group.get("Status", "")), diagnostic)
