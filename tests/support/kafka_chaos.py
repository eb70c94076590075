"""Crashes of single services over Kafka, what the cluster held when each happened, and the figures that a test ends with.

Owns the reading of the topics for the books: a recipient counts as recorded when the events say that it was delivered and no
hand-over of it to a sender is without an outcome. Neighbours: `kafka_world` runs the services, `chaos_books` judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from postrail.core import topics
from postrail.core.identity import hand_over
from postrail.core.records import EventType
from postrail.demo.ledger import Balance
from postrail.wire import codec
from tests.support.kafka_world import GROUP, KafkaWorld
from tools.kafka import commands

QUIET_SECONDS = 0.1
"""How long what a killed process has sent may still be on its way to the brokers."""
SUBMISSION_SECONDS = 0.05
"""About what one submission takes a session, with the pauses that the injector makes in the content."""
OUTBOUND = topics.outbound("default", GROUP)


async def values_of(world: KafkaWorld, *names: str) -> list[bytes]:
    """The values of all records of these topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=world.bootstrap)
    await consumer.start()
    try:
        parts = [
            TopicPartition(world.prefix + name, part)
            for name in names
            for part in range(len(await _partitions(consumer, world.prefix + name)))
        ]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        found: list[bytes] = []
        for part in parts:
            while await consumer.position(part) < ends[part]:
                batch = await consumer.getmany(part, timeout_ms=500)
                found += [record.value or b"" for record in batch.get(part, ())]
        return found
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    while not (found := consumer.partitions_for_topic(topic)):
        consumer.subscribe([topic])
        await consumer._client.force_metadata_update()
        consumer.unsubscribe()
    return set(found)


async def set_on_topic(world: KafkaWorld, name: str, setting: str) -> None:
    """Change a setting (`name=value`) of a topic under running services, as an operator does with Kafka's own tool."""
    arguments = ["--entity-type", "topics", "--entity-name", world.prefix + name, "--alter", "--add-config", setting]
    await asyncio.to_thread(commands.run, commands.CONFIGS, world.bootstrap, *arguments)


async def recorded(world: KafkaWorld) -> set[str]:
    """Recipients that the cluster holds as delivered: whoever takes over sends them nothing more."""
    events = map(codec.decode_event, await values_of(world, topics.EVENTS))
    delivered = {one for event in events if event.type is EventType.DELIVERED for one in event.recipients}
    finished = {
        name
        for value in await values_of(world, topics.outcomes("default", GROUP))
        for name in codec.decode_finished(value).names
    }
    open_deliveries = [
        delivery
        for delivery in map(codec.decode_delivery, await values_of(world, *topics.lanes(OUTBOUND)))
        if hand_over(delivery) not in finished
    ]
    return delivered - {one.address for delivery in open_deliveries for one in delivery.envelope.recipients}


async def crash(world: KafkaWorld, *names: str) -> None:
    """End services with kill -9, at the same time: a life of the books is over."""
    await asyncio.gather(*(world.members[name].kill() for name in names))
    await asyncio.sleep(QUIET_SECONDS)
    if not any(member.runs for name, member in world.members.items() if name.startswith("sender")):
        sessions = [receiver.sessions for receiver in world.receivers.values()]
        await world.until("the receivers have taken what was on the wire", lambda: not any(sessions))
    world.books.ended(await recorded(world), crashed=True)


async def crash_under_load(
    world: KafkaWorld, names: Iterable[str], crashes: int, moment: Callable[[], Awaitable[None]]
) -> None:
    """Submit without end; so many times kill a service when `moment` returns, one after the other, and start it again."""
    order = list(names)
    async with load(world):
        for number in range(crashes):
            await moment()
            name = order[number % len(order)]
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
