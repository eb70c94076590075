"""A topic's limit is lowered under load: what is too large for it waits where it is, all other mail goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postrail.core import topics
from postrail.core.records import Lane
from postrail.demo.ledger import ledger_id_of
from postrail.demo.receivers import Behaviour, Session
from tests.support.chaos_injector import Letter
from tests.support.chaos_world import DOMAINS, RETRY_SECONDS, assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures, load, set_on_topic
from tests.support.kafka_recorded import OUTBOUND, TopicReader
from tests.support.kafka_world import KafkaWorld, kafka_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LARGE_BYTES = 30_000
"""Of a body; half of it as the producer compresses it."""
LOW_BYTES, USUAL_BYTES = 12_000, 2 << 20
RATE = 20.0
MANY = 100
SIGNED = topics.laned(topics.SIGNED, Lane.URGENT)
FILLED_BY = {
    "scheduler": [topics.laned(topics.DUE, Lane.URGENT)],
    "sender": [topics.deferred(RETRY_SECONDS), topics.deferred(2 * RETRY_SECONDS)],
    "routing": [topics.laned(OUTBOUND, Lane.URGENT)],
    "signing": [SIGNED],
}
"""The topics, the last of the way first: so each large message gets as far as the one whose limit was lowered last."""


class DefersLargeOnce(Behaviour):
    """Puts each large message off once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def content(self, session: Session, content: bytes) -> str | None:
        ledger_id = ledger_id_of(content)
        if len(content) < LARGE_BYTES or ledger_id is None or ledger_id in self.seen:
            return None
        self.seen.add(ledger_id)
        return "450 4.2.0 Try again later"


async def limit(world: KafkaWorld, names: list[str], size_bytes: int) -> None:
    """Say how large a record of these topics may be."""
    for name in names:
        await set_on_topic(world, name, f"max.message.bytes={size_bytes}")


async def hold_one(world: KafkaWorld, service: str, names: list[str]) -> Letter:
    """Lower the limits of what a service fills; returns a message that it cannot pass on."""
    await limit(world, names, LOW_BYTES)
    letter = world.injector.letter(DOMAINS[0], size_bytes=LARGE_BYTES)
    assert (await world.injector.send(letter)).startswith("250")
    said = [f"too large for the topic {name}:" for name in names]
    output = world.members[service].output
    await world.until(f"{service} holds it", lambda: any(words in output.read_text() for words in said))
    return letter


async def test_what_is_too_large_for_a_topic_waits_alone(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.injector.sizes_bytes = (300,)
        world.receivers[DOMAINS[0]].behaviour = DefersLargeOnce()
        await world.start()
        async with load(world, per_second=RATE, sessions=4):
            held = [await hold_one(world, service, names) for service, names in FILLED_BY.items()]
            wanted = sum(receiver.accepted for receiver in world.receivers.values()) + MANY
            await world.until(
                "other mail goes on",
                lambda: sum(receiver.accepted for receiver in world.receivers.values()) >= wanted,
            )
            assert not any(world.books.copies(letter.recipients[0]) for letter in held)
            for names in FILLED_BY.values():
                await limit(world, names, USUAL_BYTES)
        balance = await world.settle()
        figure(figures(f"a record too large for the topic of each of {', '.join(FILLED_BY)}", world, balance))
        assert_even(world, balance)
        signed = await TopicReader(world.bootstrap, world.parts).more(SIGNED)
        assert len(signed) == len(world.injector.accepted), "something was appended twice"
