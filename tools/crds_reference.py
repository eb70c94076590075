"""Generates docs/kubernetes/reference.md from the models of the kinds: every field, condition, reason and annotation.

`python tools/crds_reference.py` writes it; `--check` fails when it is not current. What a field is for is its docstring; which
reasons a condition can have is REASONS, and a test holds it against the operator. Neighbour: `crds` (the schemas).
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from postrail.core import annotations as annotation_names  # noqa: E402  # the tools are found from the root
from postrail.core.conditions import BAD_WHEN_TRUE, ConditionType, Reason  # noqa: E402
from postrail.core.kinds import API_VERSION, DESTINATION, IP_POOL, KINDS, SENDER_POOL, SENDING_DOMAIN, Kind  # noqa: E402
from tools.crds import structural  # noqa: E402

EXAMPLES = ROOT / "docs" / "kubernetes" / "examples"
TARGET = ROOT / "docs" / "kubernetes" / "reference.md"
HEADER = f"""# The kinds

Generated from `services/postrail/core/kinds.py` and its neighbours by `make docs`; do not edit. `{API_VERSION}`, all in the
release's namespace. `kubectl explain ippool.spec` shows the same on a cluster, `kubectl get postrail` all objects.

Unknown fields are refused by `kubectl apply`. A unit stands at the end of a field's name, and with its type: s seconds, /s a
second, /min a minute. A field marked **Kept** does nothing in this release; an object that sets it has the condition
`Honoured` False, which names it. [operator.md](operator.md) tells what becomes of the objects.
"""
C, R = ConditionType, Reason
_OF_EVERY = (C.ACCEPTED, C.HONOURED)
CONDITIONS: Mapping[str, tuple[ConditionType, ...]] = {
    IP_POOL.name: (*_OF_EVERY, C.READY, C.RELEASED),
    SENDER_POOL.name: (*_OF_EVERY, C.READY, C.SCALED, C.RELEASED),
    DESTINATION.name: (*_OF_EVERY, C.READY),
    SENDING_DOMAIN.name: (*_OF_EVERY, C.VERIFIED, C.DKIM_PUBLISHED, C.SPF_AUTHORIZED, C.DMARC_VALID),
    "Submitter": (*_OF_EVERY, C.READY),
}
"""Of an object itself."""
OF_ADDRESSES = (C.PLUMBED, C.PTR_VALID, C.SPF_AUTHORIZED, C.SOURCE_VERIFIED, C.LISTED, C.QUARANTINED)
"""Of each address of an IPPool, in `status.addresses`."""
_FAULTS = (
    R.INVALID_SPEC, R.CONFIGURATION_INVALID, R.ADDRESS_TAKEN, R.POOL_TAKEN, R.STREAM_TAKEN, R.NAME_TAKEN, R.IP_POOL_MISSING,
    R.NO_ADDRESS, R.NO_GATEWAY, R.SECRET_MISSING, R.SECRET_INVALID, R.STREAM_MISSING, R.COVERS_NOTHING,
)  # fmt: skip
_LOOKED_UP = (R.VERIFIED, R.DNS_FAILED, R.CANNOT_TELL, R.NOT_CHECKED)
_DKIM = (R.RECORD_MISSING, R.RECORD_INVALID, R.SEVERAL_RECORDS, R.KEY_REVOKED, R.OTHER_KEY, R.NO_KEY)
_SPF = (R.RECORD_MISSING, R.RECORD_INVALID, R.SEVERAL_RECORDS, R.NOT_AUTHORIZED, R.NO_DOMAINS, R.NO_ADDRESSES)
_DMARC = (R.RECORD_MISSING, R.RECORD_INVALID, R.SEVERAL_RECORDS, R.NOT_ALIGNED)
_TOLD = (R.VERIFIED, R.NO_REPORT, R.NOT_VERIFIABLE, R.NOT_CHECKED)
REASONS: Mapping[ConditionType, tuple[Reason, ...]] = {
    C.ACCEPTED: (R.ACCEPTED, *_FAULTS),
    C.HONOURED: (R.EVERYTHING_ACTS, R.NOT_YET_ACTING),
    C.READY: (R.READY, R.PENDING, R.SUSPENDED, R.UNUSED, R.NO_SENDER_POOL, *_FAULTS),
    C.SCALED: (R.AS_ASKED, R.CAPPED, R.LIMITS_REACHED, R.NO_METRICS, R.INVALID_SPEC),
    C.RELEASED: (R.UNUSED, R.IN_USE, R.MAIL_QUEUED, R.UNKNOWN_QUEUE),
    C.VERIFIED: tuple(dict.fromkeys((*_LOOKED_UP, *_DKIM, *_SPF, *_DMARC))),
    C.DKIM_PUBLISHED: (*_LOOKED_UP, *_DKIM),
    C.SPF_AUTHORIZED: (*_LOOKED_UP, *_SPF),
    C.DMARC_VALID: (*_LOOKED_UP, *_DMARC),
    C.PLUMBED: (*_TOLD, R.NOT_ON_THIS_MACHINE, R.PROXY_FAILED),
    C.PTR_VALID: (
        *_LOOKED_UP,
        R.RECORD_MISSING,
        R.RECORD_INVALID,
        R.SEVERAL_RECORDS,
        R.OTHER_NAME,
        R.NOT_FORWARD_CONFIRMED,
    ),
    C.SOURCE_VERIFIED: (*_TOLD, R.OTHER_SOURCE, R.NO_CONNECTION),
    C.LISTED: (
        R.NOT_LISTED,
        R.LISTED,
        R.DNS_FAILED,
        R.QUERY_REFUSED,
        R.UNEXPECTED_ANSWER,
        R.NO_BLOCK_LISTS,
        R.CANNOT_TELL,
        R.NOT_CHECKED,
    ),
    C.QUARANTINED: (R.NOT_QUARANTINED, R.BY_ANNOTATION, R.BY_AUTOMATION, R.LAST_ADDRESS),
}
_UNITS = (
    ("PerSecond", "/s"),
    ("PerMinute", "/min"),
    ("Seconds", "s"),
    ("Days", "days"),
    ("Percent", "%"),
    ("Bytes", "bytes"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a table: the path below `spec` or `status`, and its schema."""

    path: str
    schema: Mapping[str, Any]
    required: bool


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[Field]:
    """Every field of an object's schema, in its order; those inside an object after it."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}{name}"
        yield Field(here, inner, name in schema.get("required", ()))
        if inner["type"] == "object" and inner.get("properties"):
            yield from fields(inner, f"{here}.")
        elif inner["type"] == "array" and inner["items"]["type"] == "object":
            yield from fields(inner["items"], f"{here}[].")
        elif isinstance(of_all := inner.get("additionalProperties"), dict) and of_all["type"] == "object":
            yield from fields(of_all, f"{here}.KEY.")


def type_of(field: Field) -> str:
    """Its type and unit."""
    schema = field.schema
    text = str(schema["type"])
    if text == "array":
        text = f"list of {schema['items']['type']}s"
    elif text == "object" and "additionalProperties" in schema:
        text = f"map of {schema['additionalProperties']['type']}s"
    unit = next((unit for end, unit in _UNITS if field.path.endswith(end)), "")
    return f"{text}, {unit}" if unit and schema["type"] in {"integer", "number"} else text


def bounds_of(schema: Mapping[str, Any]) -> str:
    """What it may be."""
    if schema["type"] == "array":
        few, many = schema.get("minItems"), schema.get("maxItems")
        inside = bounds_of(schema["items"]) if schema["items"]["type"] != "object" else ""
        counted = f"{few or 0} to {many} of them" if many is not None else ""
        return "; ".join(filter(None, (counted, inside)))
    parts = []
    if "enum" in schema:
        parts.append(", ".join(f"`{value}`" for value in schema["enum"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        parts.append(f"above {low:g}" if schema.get("exclusiveMinimum") else f"{low:g} or more")
    if high is not None:
        parts.append(f"below {high:g}" if schema.get("exclusiveMaximum") else f"{_number(high)} at most")
    if "maxLength" in schema:
        parts.append(f"{schema['maxLength']} characters at most")
    if "pattern" in schema:
        parts.append(f"`{schema['pattern']}`")
    if isinstance(of_all := schema.get("additionalProperties"), dict) and (inside := bounds_of(of_all)):
        parts.append(f"each {inside}")
    return "; ".join(parts)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:g}"


def default_of(field: Field) -> str:
    """Its default; what must be given says so."""
    if field.required:
        return "**required**"
    default = field.schema.get("default")
    if default is None or default in ({}, []):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{_number(default)}`" if isinstance(default, int | float) else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _spec(kind: Kind) -> list[str]:
    idle = {re.sub(r"_(\w)", lambda match: match[1].upper(), name): text for name, text in kind.spec.IDLE.items()}
    lines = ["", "### Spec", "", _row("field", "type", "default", "may be", "what it is for"), _row(*["---"] * 5)]
    for field in fields(structural(kind.spec)):
        told = str(field.schema.get("description", ""))
        kept = next(
            (text for name, text in idle.items() if name in {field.path, field.path.partition("dkim.")[2]}), None
        )
        text = f"**Kept**: {kept}." if kept is not None else told
        lines.append(_row(f"`{field.path}`", type_of(field), default_of(field), bounds_of(field.schema), text.strip()))
    rules = [rule["message"] for rule in _rules(structural(kind.spec))] + [rule.message for rule in kind.rules]
    return lines + (
        ["", "The API server refuses an object where one of these is broken:", "", *(f"- {rule}" for rule in rules)]
        if rules
        else []
    )


def _rules(schema: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    yield from schema.get("x-kubernetes-validations", ())
    for inner in schema.get("properties", {}).values():
        yield from _rules(inner)
        if isinstance(inner.get("items"), dict):
            yield from _rules(inner["items"])


def _status(kind: Kind) -> list[str]:
    lines = ["", "### Status", "", _row("field", "type", "what it tells"), _row(*["---"] * 3)]
    for field in fields(structural(kind.status)):
        if ".conditions" not in f".{field.path.removesuffix('conditions')}" and "conditions[]" not in field.path:
            told = str(field.schema.get("description", "")) or bounds_of(field.schema)
            told = "see [conditions](#conditions)" if field.path.endswith("conditions") else told
            lines.append(_row(f"`{field.path}`", type_of(field), told))
    return lines


def _section(kind: Kind) -> list[str]:
    columns = ", ".join(f"{column.name}{' (`-o wide`)' if column.wide else ''}" for column in kind.columns)
    scale = " `kubectl scale`, an HPA and KEDA act on it." if kind.scale else ""
    shown = ", ".join(f"`{one}`" for one in CONDITIONS[kind.name])
    example = (EXAMPLES / f"{kind.singular}.yaml").read_text(encoding="utf-8").rstrip()
    return [
        "",
        f"## {kind.name}",
        "",
        f"{kind.text}{scale}",
        "",
        f"`kubectl get {kind.plural}`, or `{', '.join(kind.short_names)}`. Columns: {columns}. Conditions: {shown}"
        + (f"; of each address: {', '.join(f'`{one}`' for one in OF_ADDRESSES)}." if kind is IP_POOL else "."),
        "",
        "```yaml",
        example,
        "```",
        *_spec(kind),
        *_status(kind),
    ]


def _docstrings(source: ModuleType | type) -> dict[str, str]:
    """What stands below each assignment of a module or class, by the assigned name."""
    node = ast.parse(inspect.getsource(source))
    body = node.body[0].body if isinstance(source, type) and isinstance(node.body[0], ast.ClassDef) else node.body
    found = {}
    for one, after in pairwise(body):
        if (
            isinstance(one, ast.Assign)
            and isinstance(one.targets[0], ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[one.targets[0].id] = " ".join(str(after.value.value).split())
    return found


def _conditions() -> list[str]:
    types, reasons = _docstrings(ConditionType), _docstrings(Reason)
    lines = [
        "",
        "## Conditions",
        "",
        "Their types and reasons are constants, to match on; messages may change. Unknown is never wrong: nobody could look.",
        "",
        _row("condition", "says", "wrong when", "reasons"),
        _row(*["---"] * 4),
    ]
    for one, possible in REASONS.items():
        wrong = "True" if one in BAD_WHEN_TRUE else "False"
        lines.append(_row(f"`{one}`", types[one.name], wrong, ", ".join(f"`{reason}`" for reason in possible)))
    lines += ["", _row("reason", "means"), _row("---", "---")]
    return lines + [_row(f"`{reason}`", reasons[reason.name]) for reason in sorted(Reason)]


def _annotations() -> list[str]:
    texts = _docstrings(annotation_names)
    rows = [_row(f"`{getattr(annotation_names, name)}`", text) for name, text in texts.items()]
    told = "Addresses are separated by commas; `*` stands for all. `kubectl postrail` ([kubectl.md](kubectl.md)) writes them."
    return ["", "## Annotations", "", told, "", _row("annotation", "of, and what it does"), _row("---", "---"), *rows]


def render() -> str:
    """The page."""
    lines = [line for kind in KINDS for line in _section(kind)] + _conditions() + _annotations()
    return HEADER + "\n".join(lines) + "\n"


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is not current")
    text = render()
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print("docs/kubernetes/reference.md is not current; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
