"""The scheduler service: deferral tiers in, due deliveries out.

Owns which tiers are read; each is a `postrail.scheduler.tier.TierReader`, all with one member of the group (`membership`).
"""

from __future__ import annotations

import asyncio

from postrail.core.topics import deferred, tier_of
from postrail.scheduler.membership import Membership
from postrail.scheduler.tier import TierReader
from postrail.shell.context import Context


class SchedulerService:
    """deferred.<tier> → due.<lane>.

    Every tier that the log has ever held is read beside the configured ones, so that no mail stays behind in a tier that
    the configuration has no more.
    """

    name = "scheduler"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tiers: list[TierReader] = []

    async def start(self) -> None:
        """Take up work."""
        found = [seconds for name in self._context.log.topic_names() if (seconds := tier_of(name)) is not None]
        tiers = sorted({*self._context.config.delivery.retry.tiers_seconds, *found})
        membership = Membership(self._context.log, [deferred(tier) for tier in tiers])
        self._tiers = [TierReader(self._context, tier, membership) for tier in tiers]
        await asyncio.gather(*(tier.start() for tier in self._tiers))

    async def drain(self) -> None:
        """Finish the transactions under way, release."""
        await asyncio.gather(*(tier.drain() for tier in self._tiers))

    def problem(self) -> str | None:
        """Why retries do not come back."""
        return next((problem for tier in self._tiers if (problem := tier.problem())), None)
