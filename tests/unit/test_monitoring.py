"""What watches over the system names only what exists: metrics of docs/metrics.md, runbooks of docs/runbooks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "postrail"
RULES = CHART / "rules" / "postrail.yaml"
RULE_TESTS = CHART / "rules" / "postrail.test.yaml"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))

METRIC = re.compile(r"\bpostrail_[a-z0-9_]+")


def documented() -> frozenset[str]:
    """Every series that docs/metrics.md promises: a histogram has three."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = {name for name, _ in rows}
    parts = {f"{name}{part}" for name, kind in rows if kind == "histogram" for part in ("_bucket", "_sum", "_count")}
    return frozenset(names | parts)


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_for_metrics_that_exist_and_has_a_runbook(alert: dict[str, Any]) -> None:
    named = set(METRIC.findall(alert["expr"]))
    assert named
    assert named <= documented(), f"not in docs/metrics.md: {named - documented()}"
    runbook = ROOT / alert["annotations"]["runbook_url"]
    assert runbook.is_file(), f"{runbook} does not exist"
    assert f"]({runbook.name})" in (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    assert alert["labels"]["severity"] in {"critical", "warning"}


def test_every_alert_fires_in_the_rules_own_tests() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', RULE_TESTS.read_text(encoding="utf-8")))
    assert fired == {alert["alert"] for alert in alerts()}


def test_the_tests_of_the_rules_give_metrics_that_exist() -> None:
    content = yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))
    given = {METRIC.findall(series["series"])[0] for test in content["tests"] for series in test["input_series"]}
    assert given <= documented()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_shows_metrics_that_exist(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    named = {name for query in queries(dashboard) for name in METRIC.findall(query)}
    assert named
    assert named <= documented(), f"not in docs/metrics.md: {named - documented()}"
    assert dashboard["uid"] == path.stem
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_dashboards_show_nearly_everything() -> None:
    """Metrics that no dashboard shows are those of the embedded log, and details."""
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for path in DASHBOARDS
        for query in queries(json.loads(path.read_text(encoding="utf-8")))
        for name in METRIC.findall(query)
    }
    for family in ("postrail_kafka_", "postrail_ingress_", "postrail_stage_"):
        missing = {
            name
            for name in documented()
            if name.startswith(family) and not name.endswith(("_bucket", "_sum", "_count"))
        }
        assert len(missing - shown) <= 2, f"on no dashboard: {sorted(missing - shown)}"
