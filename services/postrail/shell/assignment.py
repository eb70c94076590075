"""What a reader of the log needs to know when partitions are given to it: what its group has finished of them.

Owns the asking until there is an answer: a reader that went on without it would read everything again, or nothing. Neighbours:
`postrail.log.interface`; the readers are `postrail.shell.stage`, `postrail.scheduler.tier` and `postrail.sender.intake`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from postrail.log.interface import Log, LogError, TopicPartition
from postrail.log.progress import Progress
from postrail.shell import logs

LOG = logs.logger("log")

RETRY_SECONDS = (0.05, 5.0)
"""First and longest wait before the log is asked again."""

Answer = TypeVar("Answer")


async def committed(
    log: Log, group: str, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, Progress | None]:
    """What `group` has finished of each of `partitions`; None where it never committed."""
    topics = sorted({partition.topic for partition in partitions})
    found = await asked(lambda: log.committed(group, topics), group)
    return {partition: found.get(partition) for partition in partitions}


async def asked(question: Callable[[], Awaitable[Answer]], group: str) -> Answer:
    """The answer to a question to the log, which is put again for as long as the log fails."""
    delay_seconds = RETRY_SECONDS[0]
    while True:
        try:
            return await question()
        except LogError as error:
            LOG.warning("assignment-waits", group=group, reason=str(error), tried_again_after_seconds=delay_seconds)
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(delay_seconds * 2, RETRY_SECONDS[1])
