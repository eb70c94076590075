"""Generates docs/kubernetes/values.md from the chart's values.yaml: each value with its default and the comment above it.

`python tools/values_reference.py` writes it; `--check` fails when it is not current. A comment that starts with `# --` belongs to
the key below it; a key without one has its keys inside listed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
VALUES = ROOT / "charts" / "postrail" / "values.yaml"
TARGET = ROOT / "docs" / "kubernetes" / "values.md"
LONGEST_DEFAULT = 80
HEADER = """# Values of the chart

Generated from `charts/postrail/values.yaml` by `make docs`; do not edit. `values.schema.json` refuses what is not listed
here, and the templates refuse what cannot work together; both say what to do.

"""
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


@dataclass(frozen=True)
class Value:
    """One value: its path, such as `kafka.sasl.enabled`, its default and what it is for."""

    path: str
    default: object
    text: str


def values(source: str) -> Iterator[Value]:
    """Every value that has a comment, in the file's order."""
    defaults = yaml.safe_load(source)
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#") and comment:
            comment.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            indent = len(match[1])
            path = [(depth, key) for depth, key in path if depth < indent] + [(indent, match[2])]
            if comment:
                keys = [key for _, key in path]
                yield Value(".".join(keys), _at(defaults, keys), " ".join(comment))
            comment = []
        else:
            comment = []


def _at(tree: object, keys: list[str]) -> object:
    for key in keys:
        assert isinstance(tree, dict)
        tree = tree[key]
    return tree


def undocumented(source: str) -> list[str]:
    """Values without a comment of their own, or of the section that they are in."""
    told = {value.path for value in values(source)}

    def walk(tree: object, path: str) -> Iterator[str]:
        if path in told:
            return
        if isinstance(tree, dict) and tree:
            for key, inner in tree.items():
                yield from walk(inner, f"{path}.{key}" if path else str(key))
        else:
            yield path

    return list(walk(yaml.safe_load(source), ""))


def render(source: str) -> str:
    """The page: a table for each section."""
    sections: dict[str, list[str]] = {"General": []}
    for value in values(source):
        title = f"`{value.path.split('.', 1)[0]}`" if "." in value.path else "General"
        row = f"| `{value.path}` | {_shown(value.default)} | {value.text.replace('|', chr(92) + '|')} |"
        sections.setdefault(title, []).append(row)
    lines: list[str] = []
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| value | default | what it is for |", "| --- | --- | --- |", *rows]
    return HEADER + "\n".join(lines).lstrip("\n") + "\n"


def _shown(default: object) -> str:
    text = json.dumps(default, ensure_ascii=False)
    return f"`{text}`".replace("|", "\\|") if len(text) <= LONGEST_DEFAULT else "see values.yaml"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    source = VALUES.read_text(encoding="utf-8")
    missing = undocumented(source)
    if missing:
        print(
            f"{VALUES.relative_to(ROOT)}: these have no comment that starts with '# --': {', '.join(missing)}",
            file=sys.stderr,
        )
        return 1
    text = render(source)
    if parser.parse_args().check:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            print("docs/kubernetes/values.md is not current; run: make docs", file=sys.stderr)
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
