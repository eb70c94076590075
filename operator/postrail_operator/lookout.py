"""What the operator looks at beside the objects: the DNS, and what senders tell of their addresses. Runs beside the looks.

Owns nothing but the composition of `checker` and `reports`, which hold what was found, and their settings, which are those of the
services: `routing.dns` and `checks` of the base configuration. In a replica that stands by nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from postrail.core.checks_config import ChecksConfig
from postrail.core.routing_config import DnsConfig
from postrail.shell.dns import Resolver
from postrail_operator.checker import Checker
from postrail_operator.client import Client
from postrail_operator.compose import Composition
from postrail_operator.conditions import Seen
from postrail_operator.objects import Objects
from postrail_operator.reports import Reporter
from postrail_operator.settings import Settings, SettingsError
from postrail_operator.wanted import Routes, wanted


@dataclass(slots=True)
class Lookout:
    """The checks and the reports."""

    checker: Checker
    reporter: Reporter

    def follow(self, objects: Objects, made: Composition) -> None:
        """Look at what these objects are about, from now on."""
        self.checker.want(wanted(objects, made))
        self.reporter.active = True

    def idle(self) -> frozenset[str]:
        """SenderPools whose senders tell that nothing waits for them."""
        return self.reporter.backlogs.idle()

    def rest(self) -> None:
        """Look at nothing: another replica does."""
        self.checker.want(frozenset())
        self.reporter.active = False

    def tell(self, seen: Seen, objects: Objects, made: Composition) -> Seen:
        """What was observed, with what is known here."""
        routes = Routes.of(objects, made)
        return replace(seen, answers=self.checker.answers, reports=self.reporter.reports(), routes=routes)

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.checker.run(), name="checks")
                group.create_task(self.reporter.run(), name="reports")
        finally:
            await self.checker.resolver.close()


def lookout(settings: Settings, base: Mapping[str, Any], client: Client, poke: Callable[[], None]) -> Lookout:
    """What the settings and the base configuration ask for.

    Raises:
        SettingsError: the base configuration names name servers or block lists that cannot be.
    """
    try:
        dns = DnsConfig.model_validate(base.get("routing", {}).get("dns", {}))
        lists = ChecksConfig.model_validate(base.get("checks", {})).block_lists
        # A record that a person repaired shall be seen at the next turn, whatever its TTL was.
        most = min(dns.max_ttl_seconds, settings.check_seconds)
        resolver = Resolver(dns.model_copy(update={"max_ttl_seconds": most}))
    except (ValidationError, ValueError) as error:
        raise SettingsError(f"{settings.base_file}: routing.dns or checks cannot be used: {error}") from error
    checker = Checker(resolver, lists, poke, settings.check_seconds)
    return Lookout(checker, Reporter(client, settings, poke))
