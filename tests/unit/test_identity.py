"""Message ids: their form, their order, and that no two are the same."""

import os

import pytest

from postrail.core.identity import (
    RANDOM_BYTES,
    RANDOM_CHARACTERS,
    is_message_id,
    message_id,
    new_message_id,
    random_characters,
)
from postrail.ingress.acceptance import RandomCharacters

TIMES = [0.0, 1.001, 1_800_000_000.0, 1_800_000_000.001, 9_999_999_999.999]


@pytest.mark.parametrize("now", TIMES)
def test_both_ways_of_making_an_id_give_the_same_form_and_time(now: float) -> None:
    one = new_message_id(now, os.urandom(RANDOM_BYTES))
    other = message_id(now, random_characters(os.urandom(RANDOM_CHARACTERS)))
    assert is_message_id(one)
    assert is_message_id(other)
    assert one[:10] == other[:10]


def test_later_ids_sort_after_earlier_ones() -> None:
    ids = [message_id(now, "z" * RANDOM_CHARACTERS) for now in TIMES]
    assert ids == sorted(set(ids))


def test_every_character_of_the_alphabet_is_equally_likely() -> None:
    characters = random_characters(bytes(range(256)))
    assert {characters.count(character) for character in characters} == {8}
    assert len(set(characters)) == 32


def test_the_pool_never_gives_the_same_twice() -> None:
    pool = RandomCharacters()
    taken = [pool.take() for _ in range(2000)]
    assert {len(characters) for characters in taken} == {RANDOM_CHARACTERS}
    assert len(set(taken)) == len(taken)
