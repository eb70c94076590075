"""What the sender tells of its load."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from postrail.sender.intake import Intake
from postrail.sender.load import Load, drain_seconds
from postrail.sender.site_queue import SiteQueue


class Counted:
    """An intake's counts."""

    pool, group, name = "p", "g", "sender.p.g"

    def __init__(self) -> None:
        self.partitions: dict[Any, Any] = {}
        self.held = self.taken = self.waiting = 0

    def lag(self) -> int:
        return self.waiting


def queue(depth: int, used: float) -> SiteQueue:
    backlog = SimpleNamespace(depth=depth)
    return cast("SiteQueue", SimpleNamespace(backlog=backlog, place=("sender.p.g", 0), limits_used=lambda: used))


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"pool": "p", "group": "g"})


@pytest.mark.parametrize(
    ("eligible", "rate", "seconds"), [(0, 0.0, 0.0), (0, 5.0, 0.0), (10, 5.0, 2.0), (1, 0.0, math.inf)]
)
def test_time_to_drain(eligible: int, rate: float, seconds: float) -> None:
    assert drain_seconds(eligible, rate) == seconds


def test_signals_follow_what_could_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("postrail.sender.load.time.monotonic", lambda: now)
    intake = Counted()
    job = SimpleNamespace(queued_at=970.0)
    intake.partitions["any"] = SimpleNamespace(jobs={7: job})
    meter = Load([cast("Intake", intake)], lambda: 1000.0)
    now, intake.taken, intake.held, intake.waiting = 110.0, 120, 20, 30
    meter.measure([queue(30, 0.9), queue(10, 0.5), queue(0, 1.0)])
    assert metric("postrail_sender_queue_depth") == 20
    assert metric("postrail_sender_eligible_deliveries") == 50
    assert metric("postrail_sender_drain_seconds") == pytest.approx(5.0)
    assert metric("postrail_sender_oldest_delivery_age_seconds") == 30.0
    assert metric("postrail_sender_limits_used_ratio") == pytest.approx(0.8)
    now = 170.0
    meter.measure([])
    assert metric("postrail_sender_drain_seconds") == pytest.approx(5.0 * math.e)
    assert metric("postrail_sender_limits_used_ratio") == 0.0
