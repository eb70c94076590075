"""The scheduler service: deferral tiers in, due deliveries out.

Owns which tiers are read; each is a `postrail.scheduler.tier.TierReader`.
"""

from __future__ import annotations

import asyncio

from postrail.core.config import RetryConfig
from postrail.scheduler.tier import TierReader
from postrail.shell.context import Context


class SchedulerService:
    """deferred.<tier> → due.<lane>.

    The tiers of the defaults are read as well as the configured ones, so that mail does not stay behind in a tier that the
    configuration replaced.
    """

    name = "scheduler"

    def __init__(self, context: Context) -> None:
        tiers = {*context.config.delivery.retry.tiers_seconds, *RetryConfig().tiers_seconds}
        self._tiers = [TierReader(context, tier) for tier in sorted(tiers)]

    async def start(self) -> None:
        """Take up work."""
        for tier in self._tiers:
            await tier.start()

    async def drain(self) -> None:
        """Finish the transactions under way, release."""
        await asyncio.gather(*(tier.drain() for tier in self._tiers))

    def problem(self) -> str | None:
        """Why retries do not come back."""
        return next((problem for tier in self._tiers if (problem := tier.problem())), None)
