"""Asks what the objects want checked, a few questions at once and again every few minutes, beside the looks at the objects.

Owns the answers and the questions under way. Never raises and never holds anybody up: who wants to know reads what is there. What
is asked is decided by `wanted`, what follows by `findings`; the asking itself is `postrail.shell.checks`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from postrail.core.checks import Check, CheckResult, Reason, Verdict
from postrail.core.checks_config import BlockListConfig
from postrail.shell.checks import address as of_addresses
from postrail.shell.checks import domain as of_domains
from postrail.shell.dns import Resolver
from postrail_operator.timetable import Timetable
from postrail_operator.wanted import Answers, DkimCheck, DmarcCheck, ListedCheck, PtrCheck, SpfCheck, Wanted

LOG = logging.getLogger("postrail.operator")
# check: dkim, spf, dmarc, ptr, block-lists; verdict: passed, failed, unknown. Alert on nothing: what failed is counted by
# postrail_operator_problems. A growing share of unknown tells of the resolver.
CHECKS = Counter("postrail_operator_checks_total", "Checks of addresses and domains.", ["check", "verdict"])

AT_ONCE = 8
PAUSE_SECONDS = 0.05
"""After each check, so that thousands whose answers are remembered leave time for everything else."""
SECONDS_A_CHECK = 0.05
"""Where there are so many checks that their turns would come faster than this, they come later."""
TIMEOUT_SECONDS = 60.0
SOON_SECONDS = 60.0
"""After so long what did not pass is looked at again, so that a repair is seen soon. A listing has the usual time."""
_CHECK = {
    PtrCheck: Check.PTR,
    ListedCheck: Check.BLOCK_LISTS,
    SpfCheck: Check.SPF,
    DkimCheck: Check.DKIM,
    DmarcCheck: Check.DMARC,
}


@dataclass(slots=True)
class Checker:
    """Asks the DNS about addresses and domains.

    Args:
        poke: called when an answer differs from the one before.
        interval_seconds: until a check that passed is made again, about.
    """

    resolver: Resolver
    block_lists: Sequence[BlockListConfig]
    poke: Callable[[], None]
    interval_seconds: float
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    _answers: dict[Wanted, CheckResult] = field(default_factory=dict)
    _timetable: Timetable[Wanted] = field(default_factory=Timetable)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def answers(self) -> Answers:
        """What was found, by what was asked."""
        return self._answers

    def want(self, checks: frozenset[Wanted]) -> None:
        """Make these checks, and no others."""
        self._timetable.want(checks, self.clock())
        self._answers = {one: result for one, result in self._answers.items() if one in checks}
        self._changed.set()
        self._changed.clear()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            one = self._timetable.take(self.clock())
            if one is None:
                await self._wait(self._timetable.wait_seconds(self.clock(), self.interval_seconds))
                continue
            result = await self._ask(one)
            CHECKS.labels(result.check, result.verdict).inc()
            usual = result.verdict is Verdict.PASSED or result.reason is Reason.LISTED
            again = self.interval_seconds if usual else min(self.interval_seconds, SOON_SECONDS)
            again = max(again, len(self._timetable) * SECONDS_A_CHECK)
            self._timetable.done(one, again, self.chance(), self.clock())
            before = self._answers.get(one)
            self._answers[one] = result
            if before is None or (before.verdict, before.reason) != (result.verdict, result.reason):
                self.poke()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _ask(self, one: Wanted) -> CheckResult:
        """What the check found; that nobody can tell where it does not end, or ends with an error."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._made(one)
        except TimeoutError:
            found = f"the name servers took longer than {TIMEOUT_SECONDS:g} s"
        except Exception as error:  # its object keeps its other conditions, and it is tried again
            LOG.exception("check of %s", one)
            found = f"unexpected error: {error!r}; the operator's log has more"
        return CheckResult(_CHECK[type(one)], _subject(one), Verdict.UNKNOWN, Reason.CANNOT_TELL, found)

    async def _made(self, one: Wanted) -> CheckResult:
        resolver = self.resolver
        match one:
            case PtrCheck():
                return await of_addresses.ptr(resolver, one.address, one.ehlo)
            case ListedCheck():
                return await of_addresses.listed(resolver, one.address, self.block_lists)
            case SpfCheck():
                return await of_domains.spf(resolver, one.domain, one.address, one.ehlo)
            case DkimCheck():
                return await of_domains.dkim(resolver, one.domain, one.selector, one.key)
            case DmarcCheck():
                return await of_domains.dmarc(resolver, one.domain, "", [one.domain] if one.signed else [])


def _subject(one: Wanted) -> str:
    return one.address if isinstance(one, PtrCheck | ListedCheck) else one.domain
