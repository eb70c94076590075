"""Faults 4 and 12 over Kafka: a dot without reply; a kill between the append of a retry and the commit of what it replaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from postrail.demo.receivers import HANG, TAKE_AND_HANG, Behaviour, Session
from tests.support.chaos_behaviours import HangsAt
from tests.support.chaos_broken import DIES_AFTER_RETRY
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_world import KafkaWorld, kafka_world

FIRST, SECOND = "alpha.example", "beta.example"
LETTERS = 10
QUICK = {
    "retry": {"delays_seconds": [1], "tiers_seconds": [1], "site_backoff_seconds": [0.5]},
    "timeouts": {"final_dot_seconds": 1},
}


class Greylists(Behaviour):
    """Refuses each recipient's first attempts, and takes the next; `attempts` counts all."""

    def __init__(self, refusals: int) -> None:
        self.attempts: Counter[str] = Counter()
        self._refusals = refusals

    def rcpt(self, session: Session, address: str) -> str | None:
        self.attempts[address] += 1
        return "450 4.7.1 Greylisted, please try again later" if self.attempts[address] <= self._refusals else None


async def send(world: KafkaWorld, *domains: str) -> None:
    for _ in range(LETTERS):
        assert (await world.injector.send(world.injector.letter(*domains))).startswith("250")


@pytest.mark.slow
async def test_each_deferral_is_one_effective_retry(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides={"delivery": QUICK}) as world:
        world.have_places = True
        # The one receiver takes what is tried again, whether that is the attempt whose retry is recorded or the retry;
        # the other refuses both, and takes what comes of them.
        behaviours = {FIRST: Greylists(1), SECOND: Greylists(2)}
        for domain, behaviour in behaviours.items():
            world.receivers[domain].behaviour = behaviour
        await world.start("scheduler", "routing", "signing", "ingress")
        world.breakage = DIES_AFTER_RETRY
        await world.begin("sender")
        await send(world, FIRST, SECOND)
        await world.members["sender"].ended()
        world.books.ended(await world.recorded.now(), crashed=True)
        assert sum(behaviours[FIRST].attempts.values()), "no attempt was refused"
        world.breakage = None
        await world.start("sender")
        balance = await world.settle()
        tried = {domain: dict(Counter(behaviour.attempts.values())) for domain, behaviour in behaviours.items()}
        figure(figures(f"fault 12, kill -9 between retry and commit (recipients by attempts: {tried})", world, balance))
        assert_even(world, balance)


@pytest.mark.parametrize(("answer", "most_copies"), [(HANG, 1), (TAKE_AND_HANG, 2)])
async def test_a_dot_without_reply_is_tried_once_more(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None], answer: str, most_copies: int
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix, overrides={"delivery": QUICK}) as world:
        receiver = world.receivers[FIRST]
        receiver.behaviour = silent = HangsAt("content", answer)
        await world.start()
        letter = world.injector.letter(FIRST)
        assert (await world.injector.send(letter)).startswith("250")
        await world.until("the dot has no reply", lambda: bool(silent.reached))
        receiver.behaviour = Behaviour()
        await world.until("it is tried again", lambda: world.books.copies(letter.recipients[0]) == most_copies)
        assert silent.reached == list(letter.recipients)
        balance = await world.settle()
        figure(figures(f"fault 4, a dot without reply ({answer})", world, balance, most_copies - 1))
        assert not balance.lost
        assert world.books.copies(letter.recipients[0]) == most_copies
        assert "may be delivered more than once" in world.members["sender"].output.read_text()
