"""Faults 1, 2 and 3: the sending process is killed before the final dot, after it, and around the receiver's 250."""

import asyncio
import random

import pytest

from postrail.demo.receivers import HANG, TAKE_AND_HANG, Behaviour
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_peer import StoppingPeer
from tests.support.chaos_world import ChaosWorld, assert_even, assert_nothing_lost, chaos_world

DOMAIN = "alpha.example"


async def submit(world: ChaosWorld, count: int = 3) -> list[str]:
    """Submit letters to one domain; returns their recipients."""
    letters = [world.injector.letter(DOMAIN) for _ in range(count)]
    for letter in letters:
        assert (await world.injector.send(letter)).startswith("250")
    return [letter.recipients[0] for letter in letters]


async def test_killed_before_the_final_dot() -> None:
    async with chaos_world() as world:
        await world.start()
        receiver = world.receivers[DOMAIN]
        for point in ("greeting", "ehlo", "mail", "rcpt", "data"):
            receiver.behaviour = hanging = HangsAt(point)
            for session in list(receiver.sessions):
                session.cut()
            recipients = await submit(world)
            await world.until(lambda: bool(hanging.reached))  # noqa: B023  # called in this round
            await world.kill()
            assert not any(map(world.books.copies, recipients))
            receiver.behaviour = Behaviour()
            await world.start()
            await world.until(lambda: all(map(world.books.copies, recipients)))  # noqa: B023
        balance = await world.settle()
        assert world.books.crashes == 5
        assert_even(world, balance)


async def test_killed_in_the_middle_of_the_content() -> None:
    async with chaos_world() as world:
        receiver = world.receivers[DOMAIN]
        peer = StoppingPeer(receiver.address, receiver.port, content_bytes=100_000)
        await receiver.stop()
        await peer.start()
        await world.start()
        letter = world.injector.letter(DOMAIN, size_bytes=10 << 20)
        assert (await world.injector.send(letter)).startswith("250")
        await asyncio.wait_for(peer.reached.wait(), 20)
        await world.kill()
        await peer.stop()
        await receiver.start()
        await world.start()
        balance = await world.settle()
        assert_even(world, balance)
        assert world.books.copies(letter.recipients[0]) == 1


@pytest.mark.parametrize(("answer", "most_copies"), [(HANG, 1), (TAKE_AND_HANG, 2)])
async def test_killed_between_the_final_dot_and_its_reply(answer: str, most_copies: int) -> None:
    async with chaos_world() as world:
        receiver = world.receivers[DOMAIN]
        receiver.behaviour = hanging = HangsAt("content", answer)
        await world.start()
        recipients = await submit(world, 20)
        await world.until(lambda: bool(hanging.reached))
        await world.kill()
        in_flight = set(hanging.reached)
        receiver.behaviour = Behaviour()
        await world.start()
        balance = await world.settle()
        assert_nothing_lost(world, balance)
        assert {world.books.copies(one) for one in recipients if one not in in_flight} <= {1}
        assert {world.books.copies(one) for one in in_flight} <= set(range(1, most_copies + 1))


async def test_killed_once_the_outcome_is_durable() -> None:
    async with chaos_world() as world:
        await world.start()
        recipients = await submit(world, 5)
        await world.until_recorded(recipients)
        await world.kill()
        await world.start()
        balance = await world.settle()
        assert_even(world, balance)


async def some_250s_later(world: ChaosWorld) -> None:
    """Return some milliseconds after a receiver's 250: before its outcome is durable, or just after."""
    target = sum(one.accepted for one in world.receivers.values()) + random.randint(1, 40)
    await world.until(lambda: sum(one.accepted for one in world.receivers.values()) >= target)
    await asyncio.sleep(random.uniform(0, 0.02))


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_killed_around_the_receivers_250_under_load() -> None:
    async with chaos_world() as world:
        await world.start()
        await world.crash_under_load(40, moment=lambda: some_250s_later(world))
        balance = await world.settle()
        assert_nothing_lost(world, balance)
        assert world.books.in_flight > 0, "no crash hit between a 250 and its durable outcome"
        assert world.books.repeats() <= world.books.in_flight
