"""Turns: what is new comes at once, nothing is taken twice at the same time, and what is not wanted any more is forgotten."""

from postrail_operator.timetable import SPREAD, Timetable


def taken(table: Timetable[str], now: float) -> list[str]:
    found = []
    while (thing := table.take(now)) is not None:
        found.append(thing)
    return found


def test_everything_new_is_due_and_is_taken_once() -> None:
    table: Timetable[str] = Timetable()
    table.want(frozenset("abc"), 0.0)
    assert sorted(taken(table, 0.0)) == ["a", "b", "c"]
    assert table.wait_seconds(0.0, 60.0) == 60.0


def test_turn_comes_again_about_when_it_should() -> None:
    table: Timetable[str] = Timetable()
    table.want(frozenset("a"), 0.0)
    assert table.take(0.0) == "a"
    table.done("a", 100.0, 0.0, 0.0)
    earliest = 100.0 * (1 - SPREAD)
    assert table.take(earliest - 1) is None
    assert table.wait_seconds(0.0, 1000.0) == earliest
    assert table.take(earliest) == "a"
    table.done("a", 100.0, 0.999, 1000.0)
    assert 1100 < 1000.0 + table.wait_seconds(1000.0, 1000.0) <= 1000.0 + 100.0 * (1 + SPREAD)


def test_wanting_the_same_again_changes_no_turn() -> None:
    table: Timetable[str] = Timetable()
    table.want(frozenset("a"), 0.0)
    table.take(0.0)
    table.done("a", 100.0, 0.5, 0.0)
    table.want(frozenset("ab"), 10.0)
    assert len(table) == 2
    assert taken(table, 10.0) == ["b"]
    assert taken(table, 100.0) == ["a"]


def test_what_is_not_wanted_is_forgotten_also_while_it_is_done() -> None:
    table: Timetable[str] = Timetable()
    table.want(frozenset("ab"), 0.0)
    first = table.take(0.0)
    assert first is not None
    table.want(frozenset(), 0.0)
    table.done(first, 1.0, 0.5, 0.0)
    assert taken(table, 1000.0) == []


def test_what_is_wanted_again_while_it_is_done_is_not_done_twice_at_once() -> None:
    table: Timetable[str] = Timetable()
    table.want(frozenset("a"), 0.0)
    assert table.take(0.0) == "a"
    table.want(frozenset(), 0.0)
    table.want(frozenset("a"), 0.0)
    assert table.take(0.0) is None
    table.done("a", 10.0, 0.5, 0.0)
    assert table.take(10.0) == "a"
