"""Faults 1, 2 and 3 over Kafka: one sender among other services is killed before the dot, after it, and around the 250."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from postrail.demo.receivers import HANG, TAKE_AND_HANG, Behaviour
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_peer import StoppingPeer
from tests.support.chaos_world import assert_even, assert_nothing_lost
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import crash, crash_under_load, figures
from tests.support.kafka_world import KafkaWorld, kafka_world

DOMAIN = "alpha.example"
CRASHES = 8


async def submit(world: KafkaWorld, count: int = 3) -> list[str]:
    """Submit letters to one domain; returns their recipients."""
    letters = [world.injector.letter(DOMAIN) for _ in range(count)]
    for letter in letters:
        assert (await world.injector.send(letter)).startswith("250")
    return [letter.recipients[0] for letter in letters]


async def killed_in_the_middle_of_the_content(world: KafkaWorld) -> None:
    receiver = world.receivers[DOMAIN]
    peer = StoppingPeer(receiver.address, receiver.port, content_bytes=100_000)
    await receiver.stop()
    await peer.start()
    letter = world.injector.letter(DOMAIN, size_bytes=10 << 20)
    assert (await world.injector.send(letter)).startswith("250")
    await asyncio.wait_for(peer.reached.wait(), 20)
    await crash(world, "sender")
    await peer.stop()
    await receiver.start()
    await world.start("sender")
    await world.until("the large letter has arrived", lambda: bool(world.books.copies(letter.recipients[0])))


@pytest.mark.slow
async def test_killed_before_the_final_dot(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.have_places = True
        await world.start()
        receiver = world.receivers[DOMAIN]
        for point in ("greeting", "ehlo", "mail", "rcpt", "data"):
            receiver.behaviour = hanging = HangsAt(point)
            for session in list(receiver.sessions):
                session.cut()
            recipients = await submit(world)
            await world.until(f"a session hangs at {point}", lambda: bool(hanging.reached))  # noqa: B023
            await crash(world, "sender")
            assert not any(map(world.books.copies, recipients))
            receiver.behaviour = Behaviour()
            await world.start("sender")
            await world.until("all arrived", lambda: all(map(world.books.copies, recipients)))  # noqa: B023
        await killed_in_the_middle_of_the_content(world)
        balance = await world.settle()
        figure(figures("fault 1, kill -9 of a sender before the dot", world, balance))
        assert world.books.crashes == 6
        assert_even(world, balance)


async def test_killed_between_the_final_dot_and_its_reply(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.have_places = True
        receiver = world.receivers[DOMAIN]
        in_flight: dict[str, int] = {}
        await world.start()
        recipients: list[str] = []
        for answer, most_copies in ((HANG, 1), (TAKE_AND_HANG, 2)):
            receiver.behaviour = hanging = HangsAt("content", answer)
            recipients += await submit(world, 20)
            await world.until("a dot has no reply", lambda: bool(hanging.reached))  # noqa: B023
            await crash(world, "sender")
            in_flight |= dict.fromkeys(hanging.reached, most_copies)
            receiver.behaviour = Behaviour()
            await world.start("sender")
            await world.until("all arrived", lambda: all(map(world.books.copies, recipients)))  # noqa: B023
        balance = await world.settle()
        allowed = sum(copies - 1 for copies in in_flight.values())
        figure(figures("fault 2, kill -9 of a sender between dot and reply", world, balance, allowed))
        assert_nothing_lost(world, balance)
        assert {world.books.copies(one) for one in recipients if one not in in_flight} <= {1}
        assert all(1 <= world.books.copies(one) <= most for one, most in in_flight.items())


@pytest.mark.slow
async def test_killed_around_the_receivers_250_and_once_it_is_durable(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.have_places = True

        async def some_250s_later(_name: str) -> None:
            """Some milliseconds after a receiver's 250: before its outcome is durable, or just after."""
            target = sum(one.accepted for one in world.receivers.values()) + random.randint(1, 40)
            await world.until("more 250s", lambda: sum(one.accepted for one in world.receivers.values()) >= target)
            await asyncio.sleep(random.uniform(0, 0.02))

        await world.start()
        await crash_under_load(world, ["sender"] * CRASHES, some_250s_later)
        await world.until("all mail has arrived", lambda: not world.books.ledger.open_count)
        repeats, in_flight = world.books.repeats(), world.books.in_flight
        recipients = await submit(world, 5)
        async with asyncio.timeout(60):
            while not (await world.recorded.now()).issuperset(recipients):
                pass
        await crash(world, "sender")
        await world.start("sender")
        balance = await world.settle()
        figure(figures("fault 3, kill -9 of a sender around the 250", world, balance, in_flight))
        assert_nothing_lost(world, balance)
        assert in_flight > 0, "no crash hit between a 250 and its durable outcome"
        assert repeats <= in_flight
        assert world.books.repeats() == repeats, "sent again after the outcome was durable"
