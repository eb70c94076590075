"""Crashes of single services over Kafka, load meanwhile, and the figures that a test ends with.

Owns what a crash tells the books. Neighbours: `kafka_world` runs the services, `kafka_recorded` knows what the brokers hold,
`chaos_books` judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from postrail.demo.ledger import Balance
from tests.support.kafka_world import KafkaWorld
from tools.kafka import commands

QUIET_SECONDS = 0.1
"""How long what a killed process has sent may still be on its way to the brokers."""
SUBMISSION_SECONDS = 0.05
"""About what one submission takes a session, with the pauses that the injector makes in the content."""


async def set_on_topic(world: KafkaWorld, name: str, setting: str) -> None:
    """Change a setting (`name=value`) of a topic under running services, as an operator does with Kafka's own tool."""
    arguments = ["--entity-type", "topics", "--entity-name", world.prefix + name, "--alter", "--add-config", setting]
    await asyncio.to_thread(commands.run, commands.CONFIGS, world.bootstrap, *arguments)


async def crash(world: KafkaWorld, *names: str) -> None:
    """End services with kill -9, at the same time: a life of the books is over."""
    await asyncio.gather(*(world.members[name].kill() for name in names))
    await asyncio.sleep(QUIET_SECONDS)
    if not any(member.runs for name, member in world.members.items() if name.startswith("sender")):
        sessions = [receiver.sessions for receiver in world.receivers.values()]
        await world.until("the receivers have taken what was on the wire", lambda: not any(sessions))
    world.books.ended(await world.recorded.now(), crashed=True)


async def crash_under_load(world: KafkaWorld, names: Iterable[str], moment: Callable[[str], Awaitable[None]]) -> None:
    """Submit without end; kill each of these services, one after the other, and start it again.

    Args:
        moment: given the name of the next one, returns when it is to be killed.
    """
    async with load(world):
        for name in names:
            await moment(name)
            await crash(world, name)
            await world.start(name)


@asynccontextmanager
async def load(world: KafkaWorld, *, per_second: float = 100.0, sessions: int = 4) -> AsyncIterator[None]:
    """Submit without end for the time of an `async with`, at about this rate."""
    world.injector.pause_seconds = 2 * max(0.0, sessions / per_second - SUBMISSION_SECONDS)
    task = asyncio.create_task(world.injector.run(sessions))
    try:
        yield
        assert not task.done(), f"the injector has ended: {task.exception() if not task.cancelled() else 'cancelled'}"
    finally:
        world.injector.stop()
        await task


def figures(fault: str, world: KafkaWorld, balance: Balance, allowed: int = 0) -> str:
    """A line for the output of a test: losses and duplicates, and how many of those the crashes explain."""
    return (
        f"{fault}: {balance.accepted} recipients accepted, L={len(balance.lost)} (allowed 0), "
        f"D={balance.duplicates} (allowed {allowed}), U={balance.unaccepted_repeats} (allowed 0), "
        f"B={balance.altered} (allowed 0), kill -9: {world.books.crashes}"
    )
