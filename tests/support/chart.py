"""The chart as Helm renders it for each way to install it, and the pods that come of it.

`tests/golden/chart` has a file for each way. Owns no expectations.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import require_tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "postrail"
VALUE_SETS = sorted((ROOT / "tests" / "golden" / "chart").glob("*.yaml"))
SERVICES = {"ingress", "signing", "routing", "scheduler"}

Manifest = dict[str, Any]
every_value_set = pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = require_tool("helm", "renders the chart")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


@cache
def rendered(values: Path) -> tuple[Manifest, ...]:
    done = helm("template", "postrail", str(CHART), "--namespace", "mail", "-f", str(values))
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def named(set_name: str) -> tuple[Manifest, ...]:
    return rendered(ROOT / "tests" / "golden" / "chart" / f"{set_name}.yaml")


def only(manifests: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    found = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    assert len(found) == 1, (
        f"{kind} {name}: {len(found)} of {sorted((m['kind'], m['metadata']['name']) for m in manifests)}"
    )
    return found[0]


def sender_template(manifests: tuple[Manifest, ...], fullname: str) -> Manifest:
    template: Manifest = yaml.safe_load(only(manifests, "ConfigMap", f"{fullname}-templates")["data"]["sender.yaml"])
    return template


def base(manifests: tuple[Manifest, ...], fullname: str = "postrail") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(only(manifests, "ConfigMap", f"{fullname}-base")["data"]["postrail.yaml"])
    return content


def fullname(values: Path) -> str:
    return str(yaml.safe_load(values.read_text(encoding="utf-8")).get("fullnameOverride", "postrail"))


def pods(values: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The spec of every pod that comes of the chart, the senders' included."""
    manifests = rendered(values)
    for manifest in (*manifests, sender_template(manifests, fullname(values))):
        name = f"{manifest['kind']} {manifest['metadata'].get('name', 'of a sender')}"
        if manifest["kind"] == "Pod":
            yield name, manifest["spec"]
        elif manifest["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            yield name, manifest["spec"]["template"]["spec"]
