"""Generates docs/metrics.md from the metric declarations: their names, types, labels, help texts and the comments above.

`python tools/metrics_reference.py` writes it; `--check` fails when it is not current.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "services" / "postrail", ROOT / "operator" / "postrail_operator")
TARGET = ROOT / "docs" / "metrics.md"
KINDS = frozenset({"Counter", "Gauge", "Histogram", "Summary"})
HEADER = """# Metrics

Served at `/metrics` by every worker and the operator. Generated from the declarations in the code by `make docs`; do not edit.
Label sets are closed: never a recipient's domain, an address or a message id.

"""


@dataclass(frozen=True)
class Metric:
    """One declaration."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    comment: str
    module: str


def metrics() -> list[Metric]:
    """Every declaration at the top level of a module, by name."""
    found: list[Metric] = []
    for path in sorted(path for folder in SOURCES for path in folder.rglob("*.py")):
        if not path.name.endswith("_pb2.py"):
            found += _of_module(path)
    return sorted(found, key=lambda metric: metric.name)


def _of_module(path: Path) -> Iterator[Metric]:
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in KINDS):
            continue
        strings = [argument.value for argument in value.args[:2] if isinstance(argument, ast.Constant)]
        if len(strings) != 2:
            sys.exit(f"{path}:{node.lineno}: a metric's name and help must be literal strings")
        labels = next((argument for argument in value.args[2:3]), None) or next(
            (keyword.value for keyword in value.keywords if keyword.arg == "labelnames"), None
        )
        names = tuple(ast.literal_eval(labels)) if labels is not None else ()
        (folder,) = (folder for folder in SOURCES if path.is_relative_to(folder))
        module = str(path.relative_to(folder.parent)).removesuffix(".py").replace("/", ".")
        comment = _comment_above(lines, node.lineno)
        yield Metric(str(strings[0]), value.func.id.lower(), names, str(strings[1]), comment, module)


def _comment_above(lines: list[str], line_number: int) -> str:
    comment: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        if not line.startswith("#"):
            break
        comment.insert(0, line.lstrip("# ").rstrip())
    return " ".join(comment)


def render() -> str:
    """The page."""
    rows = ["| metric | type | labels | what it counts | label values, alerts |", "| --- | --- | --- | --- | --- |"]
    for metric in metrics():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        text = f"{metric.text} (`{metric.module}`)".replace("|", "\\|")
        rows.append(
            f"| `{metric.name}` | {metric.kind} | {labels} | {text} | {metric.comment.replace('|', chr(92) + '|')} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = render()
    if parser.parse_args().check:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            print("docs/metrics.md is not current; run: make docs", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
