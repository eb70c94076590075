"""Storing in a log that fails for a while, or that finds single records too large: what stages, scheduler and senders share.

Owns the tries, and no decision on what is stored. Neighbours: `stage_commits`, `postrail.scheduler.tier` and
`postrail.sender.outcomes`, which know what follows from a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from postrail.log.interface import TOO_LARGE_RETRY_SECONDS, Append, Log, RecordTooLarge
from postrail.shell.logs import Logger

LOG_RETRY_SECONDS = (0.05, 5.0)
"""First and longest wait before the log is tried again."""


async def until_taken(
    store: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool], cannot: Callable[[Exception], None]
) -> None:
    """Store, again and again until the log takes it, or until it is wanted no more.

    Args:
        store: begins one try; what it raises before it returns its awaitable is a defect, and goes to the caller.
        is_wanted: False once others own all of it.
        cannot: told why a try failed.
    """
    delay = LOG_RETRY_SECONDS[0]
    while is_wanted():
        storing = store()
        try:
            await storing
        except Exception as error:
            cannot(error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LOG_RETRY_SECONDS[1])
        else:
            return


async def append_groups(
    log: Log, groups: Sequence[Sequence[Append]], logger: Logger, **where: str
) -> Sequence[Sequence[Append]]:
    """Append all; returns what of each group the log finds too large. All else is stored.

    Args:
        logger: told of what is too large, with `where`; the caller tries it again after TOO_LARGE_RETRY_SECONDS.

    Raises:
        LogFull, LogUnavailable: as `Log.append`.
    """
    appends = [append for group in groups for append in group]
    try:
        if appends:
            await log.append(appends)
    except RecordTooLarge as error:
        logger.error("record kept back", reason=str(error), tried_again_after_seconds=TOO_LARGE_RETRY_SECONDS, **where)
        return error.left_of(groups)
    return [()] * len(groups)
