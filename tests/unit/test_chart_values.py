"""The chart's values: each is described and judged by the schema, and the examples of the documentation are valid objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from postrail.core.kinds import BY_NAME, read_spec
from tools.values_reference import undocumented, values

ROOT = Path(__file__).resolve().parents[2]
VALUES = (ROOT / "charts" / "postrail" / "values.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "charts" / "postrail" / "values.schema.json").read_text(encoding="utf-8"))


def differences(schema: dict[str, Any], defaults: object, path: str = "") -> Iterator[str]:
    """Where the schema and the defaults do not name the same values; free-form objects have no properties."""
    properties = schema.get("properties")
    if not isinstance(defaults, dict) or properties is None:
        return
    if schema.get("additionalProperties") is not False:
        yield f"{path or '(top)'}: the schema admits anything"
    for key in sorted({*defaults, *properties} - {"global"}):
        where = f"{path}.{key}" if path else key
        if key not in properties:
            yield f"{where}: not in the schema"
        elif key not in defaults and path != "ingress.tls.certManager.issuerRef":
            yield f"{where}: in the schema only"
        elif key in defaults:
            yield from differences(properties[key], defaults[key], where)


def test_the_schema_has_the_values_and_no_others() -> None:
    assert list(differences(SCHEMA, yaml.safe_load(VALUES))) == []


def test_a_value_that_the_schema_lacks_is_noticed() -> None:
    changed = {**yaml.safe_load(VALUES), "surprise": 1}
    assert list(differences(SCHEMA, changed)) == ["surprise: not in the schema"]


def test_every_value_is_described() -> None:
    assert undocumented(VALUES) == []
    assert undocumented("a:\n  # -- What it is.\n  b: 1\n  c: 2\n") == ["a.c"]


def test_a_comment_belongs_to_the_key_below_it() -> None:
    found = list(values("# -- One\n# and more.\na: 1\nb:\n  # -- Inner.\n  c: [x]\n"))
    assert [(value.path, value.default, value.text) for value in found] == [
        ("a", 1, "One and more."),
        ("b.c", ["x"], "Inner."),
    ]


def test_the_examples_for_installing_are_valid_objects() -> None:
    page = (ROOT / "docs" / "kubernetes" / "install.md").read_text(encoding="utf-8")
    block = re.search(r"(?:^    .*\n|^\n)*^    kind: IPPool\n(?:^    .*\n)*?(?=\n)", page, re.MULTILINE)
    assert block is not None
    text = block[0][block[0].index("    apiVersion") :]
    objects = list(yaml.safe_load_all("\n".join(line[4:] for line in text.splitlines())))
    assert [one["kind"] for one in objects] == ["IPPool", "SenderPool", "SendingDomain", "Submitter"]
    for one in objects:
        read_spec(BY_NAME[one["kind"]], one["spec"])
