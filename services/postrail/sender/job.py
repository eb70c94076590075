"""A delivery in the sender's memory: where it came from in the log, and what is known of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from postrail.core.records import Delivery, Lane, Recipient
from postrail.core.settle import RecipientResult
from postrail.log.interface import Body, TopicPartition
from postrail.log.progress import Progress, Tracker
from postrail.sender.targets import NextHop


@dataclass(slots=True, eq=False)
class Partition:
    """One partition of an outbound topic, and what of it is finished.

    Attributes:
        jobs: by offset, oldest first: all that is taken up and whose outcome is not durable.
    """

    group: str
    name: TopicPartition
    tracker: Tracker
    jobs: dict[int, Job] = field(default_factory=dict)

    def progress(self) -> Progress:
        """What can be committed now."""
        return self.tracker.progress()


@dataclass(slots=True, eq=False)
class Job:
    """One delivery.

    Attributes:
        hop: the mail hosts that may take it.
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
