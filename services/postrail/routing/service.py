"""The routing service: signed messages and due deliveries in, deliveries for the senders out.

Owns which topics are read and in which order; the loop is `postrail.shell.stage`, the work `postrail.routing.desk`.
"""

from __future__ import annotations

from postrail.core import topics
from postrail.routing.desk import RoutingDesk
from postrail.shell.context import Context
from postrail.shell.stage import Stage

GROUP = "routing"


class RoutingService:
    """signed.* and due.* → outbound.*, events, and for what cannot be routed deferred.* and accepted.*."""

    name = "routing"

    def __init__(self, context: Context) -> None:
        desk = RoutingDesk(context)
        read = [
            topic for pair in zip(topics.lanes(topics.SIGNED), topics.lanes(topics.DUE), strict=True) for topic in pair
        ]
        self._stage = Stage(self.name, context, read, GROUP, desk.handle)

    async def start(self) -> None:
        """Take up work."""
        await self._stage.start()

    async def drain(self) -> None:
        """Finish what is under way, commit, release."""
        await self._stage.drain()

    def problem(self) -> str | None:
        """Why nothing is routed."""
        return self._stage.problem()
