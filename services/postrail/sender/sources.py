"""What a sender knows of its source addresses: how mail leaves from each, and what is wrong with it, for people and the operator.

Owns the metrics about addresses. Looks at every address every few seconds, so that one without mail is known, too; whether mail
may leave is not decided here but at each connection (`egress`), which tells what it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import Gauge

from postrail.core.config import PoolConfig
from postrail.core.egress_config import Bind
from postrail.sender.egress import Problem, Way, answers, ways
from postrail.shell.configuration import can_bind

# What is wrong with a source address of ours, 1 while it lasts: unbound (this machine does not have it), proxy (its proxy does
# not answer, or refuses), mismatch (the last connection would have left from another address, or nobody said from which). The
# first two are looked at every 15 seconds, the third is known from connections. Its mail waits. Not told of addresses to which
# the network translates (`bind: gateway`). Alert when it is 1 for two minutes.
PROBLEMS = Gauge("postrail_sender_address_problems", "What is wrong with an address.", ["pool", "address", "problem"])
# Whether the last connection was seen to leave from the address: 0 before the first, and after one that would not have. Not told
# of addresses to which the network translates. Nothing to alert on: an address without mail has no connection.
VERIFIED = Gauge("postrail_sender_address_verified", "Whether the last connection left from it.", ["pool", "address"])

WATCH_SECONDS = 15.0
ANSWER_SECONDS = 5.0


class Source:
    """One source address of this sender."""

    def __init__(self, pool: str, way: Way) -> None:
        self.address = way.source
        self.way = way
        self._proxy_silent = False
        self._proxy_refused = False
        self._is_known = bool(pool) and way.bind is not Bind.GATEWAY
        if self._is_known:
            self._verified = VERIFIED.labels(pool, way.source)
            self._problems = {problem: PROBLEMS.labels(pool, way.source, problem) for problem in Problem}

    # what connections saw

    def verified(self) -> None:
        """A connection left from it."""
        if self._is_known:
            self._proxy_silent = self._proxy_refused = False
            self._verified.set(1)
            for problem in self._problems.values():
                problem.set(0)

    def mismatched(self, problem: Problem) -> None:
        """A connection would not have left from it, and was closed."""
        if self._is_known:
            self._verified.set(0)
            self._problems[problem].set(1)

    def proxy_failed(self) -> None:
        """Its proxy did not do its work."""
        if self._is_known:
            self._proxy_refused = True
            self._problems[Problem.PROXY].set(1)

    # what is seen without mail

    async def look(self) -> None:
        """See whether it is there."""
        if not self._is_known:
            return
        proxy = self.way.proxy
        here = self.way.bind is Bind.DIRECT and can_bind(self.address) is None
        self._problems[Problem.UNBOUND].set(not here and proxy is None)
        if proxy is not None and not here:
            self._proxy_silent = not await answers(proxy, ANSWER_SECONDS)
        self._problems[Problem.PROXY].set(self._proxy_silent or self._proxy_refused)


class Sources:
    """The addresses of a sender's pools.

    Args:
        pools: by name.

    Raises:
        ConfigurationError: a proxy's password file cannot be read, or holds no password.
    """

    def __init__(self, pools: Mapping[str, PoolConfig]) -> None:
        self._sources = {
            address: Source(name, way) for name, pool in pools.items() for address, way in ways([pool]).items()
        }

    def of(self, address: str) -> Source:
        """The source of this address; "" lets the kernel choose. One that the configuration no longer has must be bound here."""
        return self._sources.get(address) or Source("", Way(address))

    async def watch(self) -> None:
        """Look at every address again and again. Ends only when cancelled."""
        while True:
            await asyncio.gather(*(source.look() for source in self._sources.values()))
            await asyncio.sleep(WATCH_SECONDS)
