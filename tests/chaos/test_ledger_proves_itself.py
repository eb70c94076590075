"""The ledger against deliberately broken builds: what it does not catch here it would not catch elsewhere either."""

import pytest

from tests.support.chaos_broken import COMMIT_BEFORE_APPEND, COMMIT_LONG_AFTER_APPEND, EARLY_250
from tests.support.chaos_world import assert_nothing_lost, chaos_world

CRASHES = 12


@pytest.mark.slow
@pytest.mark.parametrize("breakage", [EARLY_250, COMMIT_BEFORE_APPEND])
async def test_losses_are_caught(breakage: str) -> None:
    async with chaos_world(breakage) as world:
        await world.start()
        await world.crash_under_load(CRASHES)
        balance = await world.settle()
        assert balance.lost
        with pytest.raises(AssertionError, match="lost of"):
            assert_nothing_lost(world, balance)


@pytest.mark.slow
async def test_repeats_are_caught() -> None:
    async with chaos_world(COMMIT_LONG_AFTER_APPEND) as world:
        await world.start()
        await world.crash_under_load(CRASHES)
        balance = await world.settle()
        assert not balance.lost
        assert balance.duplicates
        with pytest.raises(AssertionError, match=r"sent again|twice in one life"):
            assert_nothing_lost(world, balance)


async def test_without_crashes_the_books_are_even() -> None:
    async with chaos_world() as world:
        await world.start()
        await world.injector.submit(100)
        balance = await world.settle()
        assert balance.is_even, balance
        assert balance.accepted >= 100
