"""What a partition remembers of hand-overs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.sender import repeats
from postrail.sender.repeats import Offsets, Repeats


def test_a_name_is_first_once() -> None:
    known = Repeats(names=["old"])
    assert not known.is_first("old")
    assert known.is_first("new")
    assert not known.is_first("new")


def test_the_oldest_names_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_NAMES", 3)
    known = Repeats(names=["a", "b", "c"])
    assert known.is_first("d")
    assert known.is_first("a")
    assert not known.is_first("c")


@given(st.sets(st.integers(1 << 40, (1 << 40) + 500)), st.integers((1 << 40) - 20, (1 << 40) + 520))
def test_offsets_are_those_that_were_told(told: set[int], asked: int) -> None:
    offsets = Offsets(told)
    assert all(offset in offsets for offset in told)
    assert (asked in offsets) == (asked in told)
