"""Fault 5: the process that takes mail in is killed at a hundred random points of DATA and commit."""

import pytest

from tests.support.chaos_world import assert_even, chaos_world

CRASHES = 100


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_accepted_mail_survives_a_hundred_crashes_and_nothing_appears_twice() -> None:
    # Nobody listens for outgoing mail until the last start, so that no repeat can come from the sending side.
    slowly = {"delivery": {"retry": {"delays_seconds": [3], "tiers_seconds": [3], "site_backoff_seconds": [3]}}}
    async with chaos_world(overrides=slowly) as world:
        for receiver in world.receivers.values():
            await receiver.stop()
        await world.start()
        await world.crash_under_load(CRASHES)
        lost_in = world.injector.lost_in
        assert lost_in["content"] >= 10, f"crashes did not hit DATA: {lost_in}"
        assert lost_in["dot"] >= 10, f"crashes did not hit the commit: {lost_in}"
        for receiver in world.receivers.values():
            await receiver.start()
        balance = await world.settle()
        assert_even(world, balance)
        assert not list(world.data.glob("blobs/*/*.part")), "a killed writer's part was left behind"
