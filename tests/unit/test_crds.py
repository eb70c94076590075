"""The CRDs of the chart: current, structural, and in agreement with what the operator accepts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from postrail.core.kinds import KINDS, Kind
from tools import crds

STRUCTURAL = {
    "type",
    "description",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "default",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "anyOf",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
"""What of JSON Schema the API server takes, as far as it is used."""

Schema = Mapping[str, Any]


def whole(kind: Kind) -> Schema:
    schema: Schema = crds.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_file_of_the_chart_is_current(kind: Kind) -> None:
    committed = crds.TARGET / f"{kind.plural}.yaml"
    assert committed.read_text(encoding="utf-8") == crds.render(crds.crd(kind)), "run: make crds"
    assert yaml.safe_load(committed.read_text(encoding="utf-8")) == crds.crd(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_schema_is_structural(kind: Kind) -> None:
    for path, schema in nodes(whole(kind)):
        assert schema.keys() - STRUCTURAL == set(), path
        assert schema["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert (schema["type"] == "array") == ("items" in schema), path
        assert set(schema.get("required", ())) <= schema.get("properties", {}).keys(), path
        for choice in schema.get("anyOf", ()):
            assert choice.keys() <= {"format", "pattern"}, path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert isinstance(schema.get(bound, True), bool), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_names_are_kubernetes_own_style(kind: Kind) -> None:
    for path, schema in nodes(whole(kind)):
        for name in schema.get("properties", {}):
            assert re.fullmatch(r"[a-z][A-Za-z0-9]*", name), f"{path}.{name}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_lists_by_key_require_the_key(kind: Kind) -> None:
    for path, schema in nodes(whole(kind)):
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["required"], path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    schema = whole(kind)
    for column in kind.columns:
        place, steps = schema, column.path.lstrip(".").split("[")[0].split(".")
        if steps[0] == "metadata":
            continue
        for step in steps:
            place = place["properties"][step]
        assert "[?(" in column.path or place["type"] in {column.type, "array"}, column.name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_rules_within_loops_are_bounded(kind: Kind) -> None:
    """The API server refuses a rule whose cost it cannot bound: lists that rules walk through have a most."""
    for path, schema in nodes(whole(kind)):
        for rule in schema.get("x-kubernetes-validations", ()):
            for walked in re.findall(r"self\.(\w+)\.(?:all|exists)\(", rule["rule"]):
                assert "maxItems" in schema["properties"][walked], path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_status_has_no_defaults(kind: Kind) -> None:
    """The API server fills in defaults; a status says what is known."""
    for path, schema in nodes(whole(kind)["properties"]["status"]):
        assert "default" not in schema, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_fields_that_do_nothing_yet_say_so(kind: Kind) -> None:
    spec = whole(kind)["properties"]["spec"]
    described = {
        name: schema.get("description", "")
        for _, part in nodes(spec)
        for name, schema in part.get("properties", {}).items()
    }
    for name in kind.spec.IDLE:
        assert "Kept for a later release" in described[to_camel(name)]


def test_scale_acts_on_sender_pools_only() -> None:
    scaled = {kind.name for kind in KINDS if "scale" in crds.crd(kind)["spec"]["versions"][0]["subresources"]}
    assert scaled == {"SenderPool"}


def test_check_finds_a_stale_file(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crds, "TARGET", tmp_path / "crds")
    monkeypatch.setattr(crds, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["crds"])
    assert crds.main() == 0
    monkeypatch.setattr("sys.argv", ["crds", "--check"])
    assert crds.main() == 0
    (tmp_path / "crds" / "ippools.yaml").write_text("kind: other\n", encoding="utf-8")
    assert crds.main() == 1
    assert "crds/ippools.yaml is not current; run: make crds" in capsys.readouterr().err
