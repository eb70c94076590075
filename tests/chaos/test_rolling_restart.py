"""Restarts in good order under load, and fewer workers than before."""

import asyncio

import pytest

from tests.support.chaos_world import assert_even, chaos_world


@pytest.mark.slow
async def test_drained_and_started_again_under_load() -> None:
    async with chaos_world() as world:
        await world.start()
        async with world.load():
            for _ in range(8):
                await asyncio.sleep(0.4)
                await world.stop()
                await world.start()
        balance = await world.settle()
        assert_even(world, balance)


@pytest.mark.slow
async def test_two_workers_drained_and_started_again_under_load() -> None:
    async with chaos_world() as world:
        world.workers = 2
        await world.start()
        async with world.load(8):
            for _ in range(2):
                await asyncio.sleep(2)
                await world.stop()
                await world.start()
        balance = await world.settle()
        assert len(world.log_files()) == 2
        assert_even(world, balance)


async def test_one_worker_adopts_what_two_have_left_when_they_were_killed() -> None:
    async with chaos_world() as world:
        for receiver in world.receivers.values():
            await receiver.stop()
        world.workers = 2
        await world.start()
        await asyncio.sleep(1)  # the second worker
        await world.injector.submit(100, sessions=16)
        await world.kill()
        assert len(world.log_files()) == 2
        for receiver in world.receivers.values():
            await receiver.start()
        world.workers = 1
        await world.start()
        balance = await world.settle()
        assert_even(world, balance)
