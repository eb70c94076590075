"""How many senders a pool should have: from what they measured, by what could be of use. Pure; time is an argument.

Mail that could be sent now counts, never parked or deferred mail. Where the receivers' limits are used up, more senders send
nothing more. `Stabiliser` keeps the number from going up and down with every gust. The same arithmetic stands in PromQL for
KEDA (`query`). Neighbours: `prometheus` (asks for the figures), `handlers` (acts).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from postrail.core import topics
from postrail.core.config import Config
from postrail.core.kind_specs import AutoscalingSpec
from postrail.core.sites import DEFAULT_GROUP, SiteTable
from postrail.core.topic_specs import partitions_of

MOST_AT_ONCE = 2.0
"""A decision multiplies the senders by this at most: a rate that is measured during a start says little."""
BUSY = 0.75
"""Share of a core that a sender uses when another is worth having."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the senders of one pool and destination group measured.

    Attributes:
        senders: how many of them told.
        drain_seconds: how long what could be sent now takes, the mean; infinite where nothing is sent.
        limits_used: share of what the receivers' limits allow, the mean of those with mail.
        processor_used: cores that all of them use together.
    """

    group: str
    senders: int
    eligible: int
    drain_seconds: float
    limits_used: float
    processor_used: float
    oldest_seconds: float = 0.0


def needed(figures: Figures, spec: AutoscalingSpec) -> int:
    """How many senders one group's mail needs, bounds aside."""
    if figures.senders == 0:
        return spec.min_replicas
    by_processor = figures.processor_used / BUSY
    if figures.eligible == 0:
        return max(1, math.ceil(by_processor))
    if figures.limits_used >= spec.max_limits_used:
        return figures.senders
    by_drain = figures.senders * min(figures.drain_seconds / spec.target_drain_seconds, MOST_AT_ONCE)
    return max(1, min(math.ceil(max(by_drain, by_processor)), math.ceil(figures.senders * MOST_AT_ONCE)))


def wanted(figures: Sequence[Figures], spec: AutoscalingSpec, most: int) -> int:
    """How many senders a pool should have now: what its neediest group needs, within the bounds.

    Args:
        most: as many as partitions, addresses and nodes can use.
    """
    need = max((needed(one, spec) for one in figures), default=spec.min_replicas)
    return max(min(need, spec.max_replicas, most), min(spec.min_replicas, most))


@dataclass(slots=True)
class Stabiliser:
    """Remembers what was wanted, so that senders come when they were needed for a while, and go when they were not.

    After a restart it knows nothing, and so takes nothing away before it has watched for a whole window.
    """

    spec: AutoscalingSpec
    _wanted: deque[tuple[float, int]] = field(default_factory=deque)
    _since: float | None = None

    def decide(self, current: int, want: int, now: float) -> int:
        """The number of senders to have.

        Args:
            now: seconds of any steady clock.
        """
        if self._since is None:
            self._since = now
        self._wanted.append((now, want))
        longest = max(self.spec.scale_down_stabilisation_seconds, self.spec.scale_up_stabilisation_seconds)
        while len(self._wanted) > 1 and self._wanted[0][0] < now - longest:
            self._wanted.popleft()
        up = min(self._within(now, self.spec.scale_up_stabilisation_seconds))
        down = max(self._within(now, self.spec.scale_down_stabilisation_seconds))
        watched = now - self._since
        if up > current and watched >= self.spec.scale_up_stabilisation_seconds:
            return up
        if down < current and watched >= self.spec.scale_down_stabilisation_seconds:
            return down
        return current

    def _within(self, now: float, window_seconds: float) -> list[int]:
        return [want for at, want in self._wanted if at >= now - window_seconds]


def useful(config: Config, pool: str, groups: Sequence[str], nodes: int | None = None) -> int:
    """The most senders that a Deployment can use.

    A key (source address and site) lives in one partition and a partition has one owner. A group of providers has as many
    keys as it has sites times addresses; the group default has keys without number.

    Args:
        groups: its destination groups.
        nodes: on which its senders can run, one each; None: no bound.
    """
    kafka = config.log.kafka
    addresses = len(config.pools[pool].sources) if pool in config.pools else 0
    sites = SiteTable(config.routing)
    most = 0
    for group in groups:
        partitions = partitions_of(kafka, topics.outbound(pool, group)) if kafka is not None else 1
        keys = math.inf if group == DEFAULT_GROUP else addresses * sites.count_in(group)
        most = max(most, int(min(partitions, keys)))
    if not addresses:
        return 0
    most = max(most, 1)
    return most if nodes is None else min(most, nodes)


def query(pool: str, spec: AutoscalingSpec) -> str:
    """The senders that a pool needs, in PromQL: the arithmetic of `needed`, for KEDA with a threshold of 1.

    Without figures it has no value, so that nothing is scaled for a Prometheus that lost the senders.
    """
    here = f'{{pool="{pool}"}}'
    count = f"count by (group) (postrail_sender_eligible_deliveries{here})"
    drain = f"avg by (group) (postrail_sender_drain_seconds{here})"
    limits = f"max by (group) (postrail_sender_limits_used_ratio{here})"
    processor = (
        f"sum by (group) (postrail_sender_eligible_deliveries{here} * 0 + on (instance) group_left () "
        "max by (instance) (postrail_sender_process_used_ratio))"
    )
    in_time = f"{count} * clamp_max({drain} / {spec.target_drain_seconds:g}, {MOST_AT_ONCE:g})"
    by_drain = f'label_replace({in_time}, "by", "drain", "", "")'
    by_processor = f'label_replace({processor} / {BUSY:g}, "by", "processor", "", "")'
    free = f"max by (group) ({by_drain} or {by_processor}) and {limits} < {spec.max_limits_used:g}"
    return f"ceil(max(({free}) or ({count} and {limits} >= {spec.max_limits_used:g})))"
