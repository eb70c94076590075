"""Message ids: their form, their order, and that no two are the same."""

import os
from dataclasses import replace

import pytest

from postrail.core.identity import (
    RANDOM_BYTES,
    RANDOM_CHARACTERS,
    hand_over,
    is_message_id,
    made_at,
    message_id,
    new_message_id,
    notice_id,
    random_characters,
)
from postrail.core.records import DeliveryId
from postrail.ingress.acceptance import RandomCharacters
from tests.support.stage_setting import delivery

TIMES = [0.0, 1.001, 1_800_000_000.0, 1_800_000_000.001, 9_999_999_999.999]


@pytest.mark.parametrize("now", TIMES)
def test_both_ways_of_making_an_id_give_the_same_form_and_time(now: float) -> None:
    one = new_message_id(now, os.urandom(RANDOM_BYTES))
    other = message_id(now, random_characters(os.urandom(RANDOM_CHARACTERS)))
    assert is_message_id(one)
    assert is_message_id(other)
    assert one[:10] == other[:10]
    assert abs(made_at(one) - now) <= 0.001, "to the millisecond"


def test_later_ids_sort_after_earlier_ones() -> None:
    ids = [message_id(now, "z" * RANDOM_CHARACTERS) for now in TIMES]
    assert ids == sorted(set(ids))


def test_every_character_of_the_alphabet_is_equally_likely() -> None:
    characters = random_characters(bytes(range(256)))
    assert {characters.count(character) for character in characters} == {8}
    assert len(set(characters)) == 32


def test_the_pool_never_gives_the_same_twice() -> None:
    pool = RandomCharacters()
    taken = [pool.take(TIMES[2]) for _ in range(2000)]
    assert {len(characters) for characters in taken} == {RANDOM_CHARACTERS}
    assert len(set(taken)) == len(taken)


def test_a_notification_of_the_same_has_the_same_id() -> None:
    of = DeliveryId("01hzzzzzzzzzzzzzzzzzzzzzzz.aabbccddeeff.1")
    one = notice_id(of, "failed", ["a@x.test", "b@x.test"], TIMES[2])
    assert is_message_id(one)
    assert one == notice_id(of, "failed", ["b@x.test", "a@x.test"], TIMES[2])
    others = [
        notice_id(of, "delayed", ["a@x.test", "b@x.test"], TIMES[2]),
        notice_id(of, "failed", ["a@x.test"], TIMES[2]),
        notice_id(DeliveryId(of[:-1] + "2"), "failed", ["a@x.test", "b@x.test"], TIMES[2]),
    ]
    assert len({one, *others}) == 4


def test_a_hand_over_is_named_by_delivery_and_parks() -> None:
    waiting = delivery(number=1)
    names = {hand_over(waiting), hand_over(replace(waiting, parks=1)), hand_over(replace(waiting, parks=2))}
    assert len(names) == 3
    assert hand_over(waiting) == waiting.delivery_id
