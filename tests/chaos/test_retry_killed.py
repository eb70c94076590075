"""Fault 12: killed while deferrals are recorded, between the append of the retry and the commit of what it replaces."""

from collections import Counter

import pytest

from postrail.demo.receivers import Behaviour, Session
from tests.support.chaos_world import assert_even, chaos_world

QUICK_RETRIES = {"retry": {"delays_seconds": [0.2], "tiers_seconds": [0.2], "site_backoff_seconds": [0.2]}}


class Greylists(Behaviour):
    """Refuses every recipient for now."""

    def rcpt(self, session: Session, address: str) -> str:
        return "450 4.7.1 Greylisted, please try again later"


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_each_deferral_is_one_retry() -> None:
    async with chaos_world(behaviour=Greylists, overrides={"delivery": QUICK_RETRIES}) as world:
        world.injector.pause_seconds = 0.05
        await world.start()
        await world.crash_under_load(40, sessions=2)
        refusals = sum(receiver.refusals["450"] for receiver in world.receivers.values())
        assert refusals > world.books.crashes, "crashes did not hit deferrals"
        await world.stop()
        queued = Counter(recipient for item in world.waiting() for recipient in item.recipients)
        assert set(queued.values()) == {1}, f"retried twice: {[one for one in queued if queued[one] > 1][:5]}"
        assert queued.keys() >= {one for letter in world.injector.accepted.values() for one in letter.recipients}
        for receiver in world.receivers.values():
            receiver.behaviour = Behaviour()
        await world.start()
        balance = await world.settle()
        assert_even(world, balance)
