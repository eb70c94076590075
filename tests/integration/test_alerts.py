"""Prometheus itself reads the alerts, and fires each once: `charts/postrail/rules`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.tools import require_tool

RULES = Path(__file__).resolve().parents[2] / "charts" / "postrail" / "rules"


@pytest.mark.parametrize("arguments", [("check", "rules", "postrail.yaml"), ("test", "rules", "postrail.test.yaml")])
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    program = require_tool("promtool", "reads the alerts and fires each once")
    done = subprocess.run([program, *arguments], cwd=RULES, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_a_wrong_expectation_fails(tmp_path: Path) -> None:
    program = require_tool("promtool", "reads the alerts and fires each once")
    tests = (RULES / "postrail.test.yaml").read_text(encoding="utf-8")
    (tmp_path / "postrail.yaml").write_text((RULES / "postrail.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(tests.replace("PostrailDnsFails", "PostrailDnsWorks"), encoding="utf-8")
    done = subprocess.run(
        [program, "test", "rules", "wrong.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
