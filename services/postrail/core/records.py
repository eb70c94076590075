"""What travels between the services: the records of the topics as plain values.

Owns the shapes; `postrail.wire.codec` turns them into protobuf and back. Never holds behaviour beyond small derived
values. Times are Unix time in seconds (`*_at`), durations are seconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum, IntFlag
from typing import NewType

from postrail.core.replies import Reply, Scope
from postrail.core.value import value

MessageId = NewType("MessageId", str)
DeliveryId = NewType("DeliveryId", str)

NO_METADATA: tuple[tuple[str, str], ...] = ()


class Notify(IntFlag):
    """When the sender wants to hear of a recipient (RFC 3461 §4.1); ABSENT when the parameter was not given."""

    ABSENT = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    NEVER = 8


class Lane(IntEnum):
    """Which of a topic's two lanes a record takes; urgent is read first and bulk is never starved."""

    BULK = 0
    URGENT = 1


class RouteKind(IntEnum):
    """How a delivery finds its next hop."""

    MX = 0
    SMARTHOST = 1
    LMTP = 2


class EventType(IntEnum):
    """The states a recipient can reach. DELIVERED, FAILED and EXPIRED are final."""

    ACCEPTED = 1
    ROUTED = 2
    DELIVERED = 3
    DEFERRED = 4
    FAILED = 5
    EXPIRED = 6
    PARKED = 7
    AMBIGUOUS = 8
    NOTIFIED = 9


FINAL_EVENTS = frozenset({EventType.DELIVERED, EventType.FAILED, EventType.EXPIRED})


@value
class Recipient:
    """One recipient; `orcpt` is decoded (`rfc822;user@example.com`) or empty (RFC 3461 §4.2)."""

    address: str
    notify: Notify = Notify.ABSENT
    orcpt: str = ""


@value
class Envelope:
    """Who sends what to whom, and until when it is tried.

    `reverse_path` is empty for the null reverse path; `submitter` is empty for Postrail's own messages (DSNs); `ret` is
    "", "FULL" or "HDRS" (RFC 3461 §4.3); `header_message_id` is the Message-ID field without its angle brackets.
    """

    message_id: MessageId
    reverse_path: str
    recipients: tuple[Recipient, ...]
    submitter: str
    stream: str
    lane: Lane
    received_at: float
    expires_at: float
    size_bytes: int
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    tag: str = ""
    metadata: tuple[tuple[str, str], ...] = NO_METADATA
    header_message_id: str = ""

    def to(self, recipients: tuple[Recipient, ...]) -> Envelope:
        """The same envelope for some of its recipients."""
        return self if recipients == self.recipients else replace(self, recipients=recipients)


@value
class BlobRef:
    """Where a body lies that is too large to travel in a record; `sha256` is the raw digest of its bytes."""

    name: str
    size_bytes: int
    sha256: bytes


@value
class Message:
    """A message on the topics accepted and signed.

    `header_block` ends with the CRLF of its last field; the empty line between header and body is in neither. The body
    travels beside the record (`postrail.log.interface.Body`), or, when `blob` is set, lies in the blob store.
    """

    envelope: Envelope
    header_block: bytes
    blob: BlobRef | None = None


@value
class Route:
    """Where one delivery goes and from where.

    `next_hop` is the recipients' domain (MX), a host name or address literal (SMARTHOST, LMTP) or `unix:PATH` (LMTP).
    `source_address` is empty where the kernel chooses (LMTP over a Unix socket).
    """

    kind: RouteKind
    next_hop: str
    port: int
    site: str
    group: str
    pool: str
    source_address: str

    @property
    def key(self) -> bytes:
        """The key of the outbound record: all mail of one source IP to one site has one owner."""
        return f"{self.source_address}|{self.site}".encode()


@value
class Delivery:
    """One message to some recipients at one site; the record of the outbound topics and of due.

    `envelope.recipients` holds only this delivery's recipients. `route` is None until routing decided (again).
    `attempts` counts the attempts that were made; `last_reply` is None before the first. `parks` counts how often the
    delivery was parked since the last one: with `delivery_id` it names one hand-over to a sender.
    """

    delivery_id: DeliveryId
    envelope: Envelope
    header_block: bytes
    blob: BlobRef | None
    route: Route | None
    attempts: int = 0
    last_reply: Reply | None = None
    last_attempt_at: float = 0.0
    delay_notified: bool = False
    parks: int = 0


@value
class Deferred:
    """A delivery that waits in a tier until `due_at`."""

    delivery: Delivery
    deferred_at: float
    due_at: float
    reason: str


@value
class Event:
    """A state that one or more recipients of a message reached, with what is known about how.

    `bounce_class` is a value of `postrail.core.bounces.BounceClass` where the reply was negative, otherwise empty.
    """

    type: EventType
    at: float
    message_id: MessageId
    recipients: tuple[str, ...]
    delivery_id: str = ""
    submitter: str = ""
    stream: str = ""
    tag: str = ""
    attempt: int = 0
    reply: Reply | None = None
    scope: Scope | None = None
    site: str = ""
    group: str = ""
    pool: str = ""
    source_address: str = ""
    mx_host: str = ""
    mx_address: str = ""
    tls: str = ""
    duration_seconds: float = 0.0
    queued_seconds: float = 0.0
    due_at: float = 0.0
    detail: str = ""
    header_message_id: str = ""
    reverse_path: str = ""
    size_bytes: int = 0
    bounce_class: str = ""


@value
class DeadLetter:
    """A record that a stage could not process, as it was, with the reason."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    stage: str
    reason: str
    failed_at: float
    tries: int


@value
class Finished:
    """Records of one partition of an outbound topic whose outcome is durable.

    Attributes:
        names: of their hand-overs (`postrail.core.identity.hand_over`; "" where the record could not be read), then those of the
            recipients that ended with records which a predecessor may have begun (`postrail.core.identity.settlement`).
    """

    topic: str
    partition: int
    offsets: tuple[int, ...]
    names: tuple[str, ...]


@value
class Feedback:
    """What a receiver sent back to one of our feedback addresses."""

    message_id: MessageId
    reverse_path: str
    recipient: str
    received_at: float
    header_block: bytes
    blob: BlobRef | None
    client_address: str
