"""Generates the CustomResourceDefinitions of the chart from the models of the kinds.

`python tools/crds.py` writes charts/postrail/crds/; `--check` fails when they are not current. The schemas are structural, as
the API server demands: every value has a type, there are no references, and unknown fields are pruned.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from postrail.core.kinds import GROUP, KINDS, VERSION, Column, Kind

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "charts" / "postrail" / "crds"
HEADER = "# Generated from services/postrail/core/kinds.py by `make crds`; do not edit.\n"
DROPPED = frozenset({"title", "propertyNames", "additionalProperties", "$defs", "description", "default"})
"""Keywords that are rewritten, or that a structural schema has no place for."""
BOUNDS = {"ge": ("minimum", False), "gt": ("minimum", True), "le": ("maximum", False), "lt": ("maximum", True)}
EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}

Schema = dict[str, Any]


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    names: Schema = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": list(kind.short_names),
        "categories": ["postrail"],
    }
    subresources: Schema = {"status": {}}
    if kind.scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _whole(kind)},
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name},
        "spec": spec,
    }


def _whole(kind: Kind) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": kind.text,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": _without_defaults(structural(kind.status)),
        },
    }
    if kind.rules:
        schema["x-kubernetes-validations"] = [{"rule": rule.rule, "message": rule.message} for rule in kind.rules]
    return schema


def _column(column: Column) -> Schema:
    shown: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return shown | {"priority": 1} if column.wide else shown


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, with its attributes' docstrings as descriptions."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return _object(schema, definitions, _docstrings(model))


def _object(schema: Schema, definitions: Schema, texts: dict[str, dict[str, str]]) -> Schema:
    """A model's schema: names in camelCase, nothing but what is declared."""
    model_texts = texts.get(schema["title"], {})
    result: Schema = {"type": "object"}
    if "" in model_texts:
        result["description"] = model_texts[""]
    if required := schema.get("required"):
        result["required"] = [to_camel(name) for name in required]
    result["properties"] = {}
    for name, value in schema.get("properties", {}).items():
        inner = _value(value, definitions, texts)
        if name in model_texts:
            inner["description"] = " ".join(filter(None, (model_texts[name], inner.get("description"))))
        result["properties"][to_camel(name)] = inner
    return result | {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}


def _value(schema: Schema, definitions: Schema, texts: dict[str, dict[str, str]]) -> Schema:
    """One value's schema, without references and without null."""
    given: Schema = {key: value for key, value in schema.items() if key not in DROPPED}
    default = schema.get("default")
    if "anyOf" in given and any("type" in choice or "$ref" in choice for choice in given["anyOf"]):
        (alternative,) = (choice for choice in given.pop("anyOf") if choice.get("type") != "null")
        return _value(alternative, definitions, texts) | given | _default(default)
    if "$ref" in given:
        target = definitions[given.pop("$ref").removeprefix("#/$defs/")]
        if target.get("type") == "object":
            return _object(target, definitions, texts) | given | ({"default": {}} if default is not None else {})
        return _value(target, definitions, texts) | given | _default(default)
    if "const" in given:
        given["enum"] = [given.pop("const")]
    if "items" in given:
        given["items"] = _value(given["items"], definitions, texts)
    of_all = schema.get("additionalProperties")
    if isinstance(of_all, dict):
        given["additionalProperties"] = _value(of_all, definitions, texts)
    for bound, limit in EXCLUSIVE.items():
        if bound in given:
            given |= {limit: given[bound], bound: True}
    for bound, (limit, exclusive) in BOUNDS.items():
        if bound in given:
            given |= {limit: given.pop(bound)} | ({f"exclusive{limit.capitalize()}": True} if exclusive else {})
    return given | _default(default)


def _without_defaults(schema: Schema) -> Schema:
    """A status says what is known, so the API server adds nothing to it."""
    kept: Schema = {}
    for key, value in schema.items():
        if isinstance(value, dict):
            kept[key] = (
                {name: _without_defaults(inner) for name, inner in value.items()} if key == "properties" else value
            )
            if key in {"items", "additionalProperties"}:
                kept[key] = _without_defaults(value)
        elif key != "default":
            kept[key] = value
    return kept


def _default(value: object) -> Schema:
    return {} if value is None else {"default": value}


def _docstrings(model: type[BaseModel]) -> dict[str, dict[str, str]]:
    """By model and field, what the source says about it; under "" what it says about the model."""
    found: dict[str, dict[str, str]] = {}
    waiting: list[Any] = [model]
    while waiting:
        annotation = waiting.pop()
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel) and annotation.__name__ not in found:
            texts: dict[str, str] = {}
            for base in reversed(annotation.__mro__):
                if issubclass(base, BaseModel) and base.__module__.startswith("postrail."):
                    texts = {name: text for name, text in texts.items() if name} | _of_class(base)
            found[annotation.__name__] = texts
            waiting += [field.annotation for field in annotation.model_fields.values()]
        waiting += getattr(annotation, "__args__", ())
    return found


def _of_class(model: type[BaseModel]) -> dict[str, str]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(node, ast.ClassDef)
    texts = {"": text} if (text := ast.get_docstring(node)) else {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            texts[field.target.id] = after.value.value
    return {name: " ".join(text.split()) for name, text in texts.items()}


def peering() -> Schema:
    """The kind by which kopf's operators agree on who acts; its content is kopf's own."""
    names = {"kind": "KopfPeering", "listKind": "KopfPeeringList", "plural": "kopfpeerings", "singular": "kopfpeering"}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"status": free}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "kopfpeerings.kopf.dev"},
        "spec": {"group": "kopf.dev", "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Dumper(yaml.SafeDumper):
    """Writes no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render(definition: Schema) -> str:
    """The file of a CustomResourceDefinition."""
    return HEADER + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a file is not current")
    definitions = [*map(crd, KINDS), peering()]
    current = {TARGET / f"{one['spec']['names']['plural']}.yaml": render(one) for one in definitions}
    if not parser.parse_args().check:
        TARGET.mkdir(parents=True, exist_ok=True)
        for path, text in current.items():
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in current.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    stale += [path for path in TARGET.glob("*") if path not in current]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not current; run: make crds", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
