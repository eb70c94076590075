"""The reference of the kinds: complete, and its conditions and reasons are those that the operator gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from postrail.core.conditions import ConditionType, Reason
from postrail.core.kinds import API_VERSION, KINDS, Kind, read_spec
from tools import crds_reference as reference
from tools.crds import structural

OPERATOR = reference.ROOT / "operator" / "postrail_operator"
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@every_kind
def test_examples_are_what_they_show(kind: Kind) -> None:
    example: dict[str, Any] = yaml.safe_load((reference.EXAMPLES / f"{kind.singular}.yaml").read_text(encoding="utf-8"))
    assert (example["apiVersion"], example["kind"]) == (API_VERSION, kind.name)
    assert not read_spec(kind, example["spec"]).not_yet_acting()


@every_kind
def test_every_field_is_told(kind: Kind) -> None:
    for model in (kind.spec, kind.status):
        for field in reference.fields(structural(model)):
            told = field.schema.get("description") or reference.bounds_of(field.schema)
            assert told or field.path.endswith("conditions"), f"{kind.name}: {field.path} says nothing of itself"


def test_fields_that_do_nothing_yet_are_marked() -> None:
    page = reference.render()
    for path in ("warmup", "tlsPolicy", "automation", "dkim.rotation", "returnPath", "tracking"):
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{path}` |"))
        assert "**Kept**" in row
    assert "| `messagesPerMinute` | integer, /min |" in page
    assert "| `binding.mode` | string | `direct` | `direct`, `socks5`, `egressGateway` |" in page


def test_every_reason_is_of_a_condition_and_told() -> None:
    told = {reason for reasons in reference.REASONS.values() for reason in reasons}
    assert told == set(Reason)
    assert set(reference.REASONS) == set(ConditionType)
    shown = {one for conditions in reference.CONDITIONS.values() for one in conditions} | set(reference.OF_ADDRESSES)
    assert shown == set(ConditionType)


def test_the_operator_gives_no_reason_that_is_not_told() -> None:
    found = set(pairs())
    assert len(found) > 25
    for kind, reason in sorted(found):
        assert Reason[reason] in reference.REASONS[ConditionType[kind]], f"{kind} may be {reason}"


def pairs() -> Iterator[tuple[str, str]]:
    """Condition and reason, where both stand in one call of the operator's code; faults are of Accepted."""
    for path in OPERATOR.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            named = [
                (one.value.id, one.attr)
                for one in node.args
                if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name)
            ]
            reasons = [name for of, name in named if of == "Reason"]
            kinds = [name for of, name in named if of == "ConditionType"]
            if isinstance(node.func, ast.Attribute) and node.func.attr == "fault":
                kinds = ["ACCEPTED"]
            yield from ((kind, reason) for kind in kinds for reason in reasons)
