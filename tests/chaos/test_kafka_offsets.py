"""Fault 13: what the groups have finished is deleted on the brokers. All is read again; what was delivered is not sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from postrail.demo.ledger import Balance
from postrail.demo.receivers import Behaviour, Session
from tests.support import chaos_broken
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_world import KafkaWorld, kafka_world
from tools.kafka import commands

LETTERS = 25
LATE = "gamma.example"


class NotNow(Behaviour):
    """Puts every recipient off."""

    def rcpt(self, session: Session, address: str) -> str | None:
        return "451 4.3.2 not now"


async def submit(world: KafkaWorld, count: int) -> None:
    for _ in range(count):
        assert (await world.injector.send(world.injector.letter())).startswith("250")


def late(world: KafkaWorld) -> int:
    """Accepted recipients that a receiver puts off."""
    return sum(entry.recipient.endswith(LATE) for entry in world.books.ledger.open_entries)


def delete_groups(world: KafkaWorld) -> list[str]:
    """Delete all that our groups have committed, as an operator's mistake does; returns their names."""
    listed = commands.run(commands.CONSUMER_GROUPS, world.bootstrap, "--list").split()
    ours = [name for name in listed if name.startswith(world.prefix)]
    named = [argument for name in ours for argument in ("--group", name)]
    commands.run(commands.CONSUMER_GROUPS, world.bootstrap, "--delete", *named)
    return ours


async def deliver_delete_and_go_on(world: KafkaWorld) -> Balance:
    """Deliver some, stop, delete the offsets, start, deliver the others and some more."""
    world.receivers[LATE].behaviour = NotNow()
    await world.start()
    await submit(world, LETTERS)
    await world.until("only the late ones wait", lambda: world.books.ledger.open_count == late(world) > 0)
    await world.stop()
    deleted = await asyncio.to_thread(delete_groups, world)
    assert {name.removeprefix(world.prefix) for name in deleted} >= {"signing", "routing", "sender.default.default"}
    world.receivers[LATE].behaviour = Behaviour()
    await world.start()
    await submit(world, LETTERS)
    return await world.settle()


async def test_deleted_offsets_repeat_no_delivery(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        balance = await deliver_delete_and_go_on(world)
        figure(figures("fault 13, what the groups have finished is deleted", world, balance))
        assert_even(world, balance)


async def test_without_the_outcomes_the_ledger_shows_repeats(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.breakage = chaos_broken.OUTCOMES_UNREAD
        balance = await deliver_delete_and_go_on(world)
        assert balance.duplicates > 0
        assert not balance.lost
