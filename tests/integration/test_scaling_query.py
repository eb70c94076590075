"""The PromQL of scaling, asked of Prometheus's own engine: it says what `needed` says of the same figures."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import yaml

from postrail.core.kind_specs import AutoscalingSpec
from postrail_operator.prometheus import QUESTIONS
from postrail_operator.scaling import Figures, query, wanted
from tests.support.tools import require_tool

SPEC = AutoscalingSpec(min_replicas=1, max_replicas=8, target_drain_seconds=60)
CASES = {
    "in time": [Figures("default", 2, 100, 60, 0.1, 0.1)],
    "too slow": [Figures("default", 2, 100, 90, 0.1, 0.1)],
    "stuck": [Figures("default", 2, 100, math.inf, 0.1, 0.1)],
    "too many": [Figures("default", 4, 100, 6, 0.1, 0.1)],
    "idle": [Figures("default", 4, 0, 0, 0, 0.1)],
    "busy": [Figures("default", 2, 0, 0, 0, 1.6)],
    "busy in time": [Figures("default", 2, 100, 10, 0.1, 1.9)],
    "limits used up": [Figures("default", 2, 100, 600, 0.9, 1.9)],
    "neediest group": [Figures("gmail", 1, 50, 30, 0.1, 0.1), Figures("default", 3, 900, 100, 0.2, 0.3)],
    "a group at its limits": [Figures("gmail", 3, 50, 600, 1.0, 0.1), Figures("default", 1, 900, 100, 0.2, 0.3)],
}


def series(figures: list[Figures]) -> list[dict[str, str]]:
    """What the senders' metrics are when they measure this; those of another pool beside them."""
    found = [
        {
            "series": 'postrail_sender_eligible_deliveries{pool="other",group="default",instance="9"}',
            "values": "5000x9",
        },
        {"series": 'postrail_sender_process_used_ratio{instance="9"}', "values": "1x9"},
    ]
    for one in figures:
        for number in range(one.senders):
            instance = f"{one.group}-{number}"
            labels = f'{{pool="a",group="{one.group}",instance="{instance}"}}'
            measured = {
                f"postrail_sender_eligible_deliveries{labels}": one.eligible / one.senders,
                f"postrail_sender_drain_seconds{labels}": one.drain_seconds,
                f"postrail_sender_limits_used_ratio{labels}": one.limits_used,
                f"postrail_sender_oldest_delivery_age_seconds{labels}": one.oldest_seconds,
                f'postrail_sender_process_used_ratio{{instance="{instance}"}}': one.processor_used / one.senders,
            }
            found += [{"series": name, "values": " ".join([said(value)] * 6)} for name, value in measured.items()]
    return found


def said(value: float) -> str:
    """A number as promtool wants it."""
    return "+Inf" if math.isinf(value) else f"{value:g}"


def promtool(folder: Path, tests: list[dict[str, object]]) -> None:
    """Fails where an expression has another value."""
    program = require_tool("promtool", "it evaluates the queries of scaling")
    (folder / "rules.yaml").write_text("groups: []\n", encoding="utf-8")
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}), encoding="utf-8")
    done = subprocess.run([program, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_keda_is_told_what_the_operator_would_do(tmp_path: Path) -> None:
    tests: list[dict[str, object]] = []
    for name, figures in CASES.items():
        samples = [{"labels": "{}", "value": wanted(figures, SPEC, most=8)}]
        expression = {"expr": f"clamp_min({query('a', SPEC)}, 1)", "eval_time": "4m", "exp_samples": samples}
        tests.append(
            {"name": name, "interval": "1m", "input_series": series(figures), "promql_expr_test": [expression]}
        )
    promtool(tmp_path, tests)


def test_keda_is_told_nothing_where_nobody_measures(tmp_path: Path) -> None:
    expression = {"expr": query("a", SPEC), "eval_time": "4m", "exp_samples": []}
    promtool(tmp_path, [{"interval": "1m", "input_series": series([]), "promql_expr_test": [expression]}])


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ("senders", "senders"),
        ("eligible", "eligible"),
        ("drain", "drain_seconds"),
        ("limits", "limits_used"),
        ("oldest", "oldest_seconds"),
        ("processor", "processor_used"),
    ],
)
def test_questions_are_answered_by_pool_and_group(tmp_path: Path, question: str, field: str) -> None:
    figures = [Figures("default", 2, 100, 60, 0.25, 0.5, 7)]
    labels = json.dumps("a"), json.dumps("default")
    samples = [{"labels": f"{{pool={labels[0]},group={labels[1]}}}", "value": getattr(figures[0], field)}]
    text = f'({QUESTIONS[question]}) and on (pool) label_replace(vector(1), "pool", "a", "", "")'
    expression = {"expr": text, "eval_time": "4m", "exp_samples": samples}
    promtool(tmp_path, [{"interval": "1m", "input_series": series(figures), "promql_expr_test": [expression]}])
