"""A delivery in the sender's memory: where it came from in the log, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from postrail.core.records import Delivery, Lane, Recipient
from postrail.core.settle import RecipientResult
from postrail.log.interface import Body, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.sender.repeats import Repeats
from postrail.sender.targets import NextHop


@dataclass(slots=True, eq=False)
class Ownership:
    """What a partition has where several processes share the log, and this one may lose it.

    Attributes:
        since: when it was given to this process, seconds of the loop's clock.
        inherited_before: Unix seconds; records that are older may have been begun by a predecessor.
        lease_seconds: for how long this process may still act as its owner; 0 or less: not any more.
        repeats: what was taken up or finished before.
        key: of any of its records; what is appended with it goes to the partition of the same number.
    """

    since: float
    inherited_before: float
    lease_seconds: Callable[[], float]
    repeats: Repeats
    key: bytes = b""


@dataclass(slots=True, eq=False)
class Partition:
    """One partition of an outbound topic, and what of it is finished.

    Attributes:
        ownership: None where the log belongs to this process alone.
        leaving: it is being given up: nothing more of it is started.
        lost: it is given up: nothing more of it is committed.
        jobs: by offset, oldest first: all that is taken up and whose outcome is not durable.
    """

    group: str
    name: TopicPartition
    tracker: Tracker
    ownership: Ownership | None = None
    leaving: bool = False
    lost: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)

    def progress(self) -> Progress:
        """What can be committed now."""
        return self.tracker.progress()

    @property
    def place(self) -> tuple[str, int]:
        """What it shares with the same partition of the other lane: whoever owns one owns both."""
        return (self.group, self.name.partition)


@dataclass(slots=True, eq=False)
class Job:
    """One delivery.

    Attributes:
        hop: the mail hosts that may take it.
        name: of this hand-over; "" where the log belongs to this process alone.
        results: of recipients that are decided although others must be tried again at once.
        quick_retries: how often it was put back at once because a connection broke before the final dot.
        gone: taken out of its queue without being popped; the queue passes over it.
    """

    delivery: Delivery
    partition: Partition
    offset: int
    lane: Lane
    body: Body | None
    queued_at: float
    hop: NextHop
    name: str = ""
    results: list[RecipientResult] = field(default_factory=list)
    quick_retries: int = 0
    queued: bool = False
    gone: bool = False

    @property
    def pending(self) -> tuple[Recipient, ...]:
        """The recipients that are not decided."""
        recipients = self.delivery.envelope.recipients
        if not self.results:
            return recipients
        decided = {result.recipient.address for result in self.results}
        return tuple(recipient for recipient in recipients if recipient.address not in decided)

    def owned_seconds(self) -> float:
        """For how long this process may still finish it."""
        ownership = self.partition.ownership
        return float("inf") if ownership is None else ownership.lease_seconds()
