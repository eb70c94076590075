"""What waits for one site: its deliveries, bundled by the mail hosts that may take them, in the order in which they go.

Owns that order: urgent first, bulk never starved, bundles in turns; within a lane first come, first served. Decides nothing about
limits or connections; that is `site_queue`, its only user.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from postrail.core.back_off import BackOff
from postrail.core.records import Lane
from postrail.sender.job import Job
from postrail.sender.targets import NextHop

BULK_EVERY = 5
"""Every so many deliveries bulk goes first."""


@dataclass(slots=True, eq=False)
class Bundle:
    """The deliveries for one set of mail hosts.

    Attributes:
        opening: connections that are being opened for it.
        back_off: for how long its hosts are left alone.
    """

    hop: NextHop
    names: frozenset[str]
    back_off: BackOff
    urgent: deque[Job] = field(default_factory=deque)
    bulk: deque[Job] = field(default_factory=deque)
    depth: int = 0
    opening: int = 0
    taken: int = 0

    def lane(self, lane: Lane) -> deque[Job]:
        """Where the jobs of a lane wait."""
        return self.urgent if lane is Lane.URGENT else self.bulk

    def pop(self) -> Job | None:
        """The next job; None when there is none."""
        urgent, bulk = self.urgent, self.bulk
        while urgent or bulk:
            bulk_first = not urgent or (bool(bulk) and self.taken % BULK_EVERY == BULK_EVERY - 1)
            job = (bulk if bulk_first else urgent).popleft()
            if job.gone:
                continue
            self.taken += 1
            self.depth -= 1
            job.queued = False
            return job
        return None

    def youngest_first(self) -> Iterator[Job]:
        """What waits, the least urgent and youngest first."""
        for lane in (self.bulk, self.urgent):
            yield from (job for job in reversed(lane) if not job.gone)


class Backlog:
    """All that waits for a site.

    Attributes:
        depth: how many deliveries wait.
        waiting: the bundles that have some, the one whose turn it is first.
    """

    __slots__ = ("_back_off_seconds", "bundles", "depth", "waiting")

    def __init__(self, back_off_seconds: Sequence[float]) -> None:
        self.depth = 0
        self.bundles: dict[NextHop, Bundle] = {}
        self.waiting: dict[Bundle, None] = {}
        self._back_off_seconds = back_off_seconds

    def bundle(self, hop: NextHop) -> Bundle:
        """The bundle of a set of mail hosts."""
        bundle = self.bundles.get(hop)
        if bundle is None:
            bundle = self.bundles[hop] = Bundle(hop, hop.names, BackOff(self._back_off_seconds))
        return bundle

    def add(self, bundle: Bundle, job: Job, *, front: bool = False) -> None:
        """Let a job wait, as the last or the first of its lane."""
        lane = bundle.lane(job.lane)
        if front:
            lane.appendleft(job)
        else:
            lane.append(job)
        job.queued = True
        bundle.depth += 1
        self.depth += 1
        self.waiting[bundle] = None

    def take_out(self, job: Job) -> None:
        """A waiting job waits no more."""
        bundle = self.bundles[job.hop]
        job.gone, job.queued = True, False
        bundle.depth -= 1
        self.depth -= 1
        if not bundle.depth:
            self.waiting.pop(bundle, None)

    def pop(self, bundle: Bundle) -> Job | None:
        """The next job of a bundle, whose turn is then over; None when there is none."""
        job = bundle.pop()
        if job is not None:
            self.depth -= 1
        if not bundle.depth:
            self.waiting.pop(bundle, None)
        elif len(self.waiting) > 1:
            del self.waiting[bundle]
            self.waiting[bundle] = None
        return job

    def pop_for(self, own: Bundle, host: str) -> Job | None:
        """The next job that a connection to `host`, opened for the bundle `own`, may take."""
        if own in self.waiting and len(self.waiting) == 1:
            return self.pop(own)
        for bundle in list(self.waiting):
            if (bundle is own or host in bundle.names) and (job := self.pop(bundle)) is not None:
                return job
        return None

    def drain(self, bundle: Bundle) -> Iterator[Job]:
        """Every job of a bundle, in order; none of them waits any more."""
        while (job := self.pop(bundle)) is not None:
            yield job

    def forget_leaving(self) -> None:
        """Drop the jobs of partitions that are being given up: their next owner sends them."""
        for bundle in list(self.waiting):
            for lane in (bundle.urgent, bundle.bulk):
                kept = [job for job in lane if not (job.gone or job.partition.leaving)]
                lane.clear()
                lane.extend(kept)
            self.depth -= bundle.depth
            bundle.depth = len(bundle.urgent) + len(bundle.bulk)
            self.depth += bundle.depth
            if not bundle.depth:
                del self.waiting[bundle]

    def youngest_half(self) -> Sequence[Job]:
        """Half of what waits: of each bundle the least urgent and youngest first."""
        jobs = [job for bundle in self.waiting for job in bundle.youngest_first()]
        return jobs[: (len(jobs) + 1) // 2]
