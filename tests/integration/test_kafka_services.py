"""Each service in a process of its own, on Kafka: mail goes all the way, and services come and go without harm."""

from __future__ import annotations

from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_world import kafka_world


async def test_mail_goes_through_separate_services(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        await world.start()
        for _ in range(20):
            assert (await world.injector.send(world.injector.letter())).startswith("250")
        assert_even(world, await world.settle())
