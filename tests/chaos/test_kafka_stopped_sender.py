"""Fault 10: a sender is stopped past its session time-out, its partitions move, and it goes on: it sends no final dot."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

import pytest

from tests.support.chaos_broken import LEASE_IGNORED
from tests.support.chaos_peer import HeldPeer
from tests.support.chaos_world import assert_even
from tests.support.kafka import KafkaBroker
from tests.support.kafka_chaos import figures
from tests.support.kafka_world import KafkaWorld, kafka_world

SMALL, LARGE = "alpha.example", "beta.example"
LARGE_BYTES = 10 << 20


async def stop_move_and_continue(world: KafkaWorld) -> Sequence[HeldPeer]:
    """Stop a sender before the content of small messages and within a large one; another delivers them; let it go on."""
    receivers = [world.receivers[SMALL], world.receivers[LARGE]]
    peers = [HeldPeer(one.address, one.port, asks=one is receivers[1]) for one in receivers]
    for receiver, peer in zip(receivers, peers, strict=True):
        await receiver.stop()
        await peer.start()
    await world.start()
    letters = [*(world.injector.letter(SMALL) for _ in range(5)), world.injector.letter(LARGE, size_bytes=LARGE_BYTES)]
    for letter in letters:
        assert (await world.injector.send(letter)).startswith("250")
    await world.until("each peer holds a session", lambda: all(peer.held for peer in peers))
    world.members["sender"].signal(signal.SIGSTOP)
    for receiver, peer in zip(receivers, peers, strict=True):
        peer.listen_no_more()
        await receiver.start()
    await world.start("sender-2")
    await world.until("the other sender has delivered all", lambda: not world.books.ledger.open_count)
    for peer in peers:
        peer.release()
    world.members["sender"].signal(signal.SIGCONT)
    await world.until("the held sessions have an end", lambda: all(peer.ended or peer.taken for peer in peers))
    return peers


@pytest.mark.slow
async def test_a_sender_that_was_stopped_sends_no_final_dot(
    kafka_broker: KafkaBroker, kafka_prefix: str, figure: Callable[[str], None]
) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        peers = await stop_move_and_continue(world)
        assert not any(peer.taken for peer in peers)
        await world.injector.submit(100)
        balance = await world.settle()
        figure(figures("fault 10, SIGSTOP of a sender, then SIGCONT", world, balance))
        assert not any(peer.taken for peer in peers)
        assert_even(world, balance)


@pytest.mark.slow
async def test_a_sender_that_ignores_its_lease_is_seen(kafka_broker: KafkaBroker, kafka_prefix: str) -> None:
    async with kafka_world(kafka_broker.bootstrap, kafka_prefix) as world:
        world.breakage = LEASE_IGNORED
        small, _ = await stop_move_and_continue(world)
        assert small.taken
