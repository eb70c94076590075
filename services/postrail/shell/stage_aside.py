"""Records that a stage cannot handle yet, set aside in a topic of their own so that they hold up nothing else.

Owns that topic's reading: each record is tried again once it has lain there for the delay, and goes to the topic's end when it
still cannot be handled. All wait equally long, so the oldest is always the next and little is held in memory. Neighbour:
`postrail.shell.stage`, which sets records aside and does the reading.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from postrail.log.interface import Append, Record
from postrail.shell.context import Context
from postrail.shell.stage import Handle, NotReady, Stage, set_aside

AHEAD_RECORDS = 100
"""So many are read before their time."""


class Aside:
    """Reads the topic that a stage sets records aside in.

    Args:
        name, group, handle: the stage's.
        topic: its `aside`.
        delay_seconds: from when a record was set aside to when it is tried.
    """

    def __init__(
        self, name: str, context: Context, topic: str, group: str, handle: Handle, delay_seconds: float
    ) -> None:
        self._topic = topic
        self._clock = context.clock
        self._handle = handle
        self._delay_seconds = delay_seconds
        self._stage = Stage(name, context, [topic], group, self._again, batch=AHEAD_RECORDS, kept_back=AHEAD_RECORDS)

    async def start(self) -> None:
        """Take up work."""
        await self._stage.start()

    async def drain(self) -> None:
        """Finish what is under way, commit, leave."""
        await self._stage.drain()

    def problem(self) -> str | None:
        """Why nothing is tried again. That records wait is none: it is what they are here for."""
        return self._stage.stopped()

    def _again(self, record: Record) -> Sequence[Append] | Awaitable[Sequence[Append]]:
        wait_seconds = record.appended_at + self._delay_seconds - self._clock()
        if wait_seconds > 0:
            raise NotReady(min(wait_seconds, self._delay_seconds), "they were set aside until their next try")
        try:
            result = self._handle(record)
        except NotReady:
            return [set_aside(record, self._topic)]
        return result if isinstance(result, (list, tuple)) else self._awaited(record, result)  # type: ignore[arg-type]

    async def _awaited(self, record: Record, result: Awaitable[Sequence[Append]]) -> Sequence[Append]:
        try:
            return await result
        except NotReady:
            return [set_aside(record, self._topic)]
