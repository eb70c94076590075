"""When a pool's senders have nothing to send: all of them told so, and more than once."""

import pytest

from postrail_operator.backlogs import FORGET_SECONDS, IN_A_ROW, Backlogs, read_eligible

METRICS = """\
# TYPE postrail_sender_eligible_deliveries gauge
postrail_sender_eligible_deliveries{group="gmail",pool="fast"} 3.0
postrail_sender_eligible_deliveries{group="default",pool="fast"} 4.0
postrail_sender_eligible_deliveries{group="default",pool="slow"} 0.0
postrail_sender_drain_seconds{group="gmail",pool="fast"} +Inf
"""


def test_eligible_deliveries_of_all_groups_count() -> None:
    assert read_eligible(METRICS) == {"fast": 7, "slow": 0}
    assert read_eligible("") == {}
    with pytest.raises(ValueError, match=r"."):
        read_eligible("postrail_sender_eligible_deliveries{pool=")


def test_idle_is_who_was_idle_several_times() -> None:
    backlogs = Backlogs(lambda: 0.0)
    for _ in range(IN_A_ROW):
        assert backlogs.idle() == frozenset()
        backlogs.take([("a", 0), ("a", 0), ("b", 0)])
    assert backlogs.idle() == {"a", "b"}


@pytest.mark.parametrize("other", [1, None])
def test_one_sender_that_has_mail_or_does_not_tell_is_enough(other: int | None) -> None:
    backlogs = Backlogs(lambda: 0.0)
    for _ in range(IN_A_ROW):
        backlogs.take([("a", 0), ("b", 0)])
    backlogs.take([("a", 0), ("a", other), ("b", 0)])
    assert backlogs.idle() == {"b"}
    backlogs.take([("a", 0), ("a", 0)])
    assert backlogs.idle() == frozenset(), "it counts anew; and of b nobody tells"


def test_what_was_told_long_ago_does_not_count() -> None:
    now = [100.0]
    backlogs = Backlogs(lambda: now[0])
    for _ in range(IN_A_ROW):
        backlogs.take([("a", 0)])
    assert backlogs.idle() == {"a"}
    now[0] += FORGET_SECONDS
    assert backlogs.idle() == frozenset()
    backlogs.take([("a", 0)])
    assert backlogs.idle() == frozenset()
