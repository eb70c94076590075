"""What happens to mail under way when partitions come and go, because processes that share the log start and stop.

Owns the order of giving up: start nothing new; close transactions whose final dot is unsent (their deliveries stay unfinished);
wait for those past it; make their outcomes durable and commit them; forget the rest. All of it within the drain time, which
is shorter than the log waits for a member. Neighbours: `intake` is told by the log, `site_queue` and `connection` obey,
`outcomes` writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

from prometheus_client import Counter

from postrail.sender.connection import Connection
from postrail.sender.job import Partition
from postrail.sender.outcomes import Outcomes
from postrail.sender.site_queue import SiteQueue
from postrail.shell import logs

LOG = logs.logger("sender")

# Deliveries that were under way when their partition went to another process; that one sends them. Nothing to alert on.
HANDED_OVER = Counter("postrail_sender_handed_over_deliveries_total", "Deliveries given back with their partition.")

LAST_SECONDS = 1.0
"""How long connections and outcomes have when the drain time is over."""


async def give_up(
    partitions: Sequence[Partition], queues: Iterable[SiteQueue], outcomes: Outcomes, within_seconds: float
) -> int:
    """Hand partitions over to whoever gets them next; returns how many deliveries were forgotten.

    They are lost when this returns, and also when it is cancelled because the log waits no longer.
    """
    deadline = asyncio.get_running_loop().time() + within_seconds
    places = {partition.place for partition in partitions}
    for partition in partitions:
        partition.leaving = True
    connections = [connection for queue in queues if queue.place in places for connection in queue.let_go()]
    try:
        await end(connections, within_seconds)
        left_seconds = max(deadline - asyncio.get_running_loop().time(), LAST_SECONDS)
        if not await outcomes.settled(partitions, left_seconds):
            LOG.warning("given-up-late", partitions=len(partitions), reason=outcomes.refusal or "the log is slow")
    finally:
        for partition in partitions:
            partition.lost = True
    forgotten = sum(partition.tracker.in_flight for partition in partitions)
    HANDED_OVER.inc(forgotten)
    return forgotten


async def end(connections: Collection[Connection], within_seconds: float) -> None:
    """Wait until connections that were told to stop have ended; those that take too long are given up."""
    tasks = [connection.task for connection in connections if connection.task is not None]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=within_seconds)
    for connection in connections:
        connection.give_up()
    await asyncio.wait(tasks, timeout=LAST_SECONDS)
