"""docs/faults.md names tests that exist, for every fault that must be survived so far."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line.split("|")
    for line in (ROOT / "docs/faults.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
]
TESTED = [*range(1, 29), 30, 31]


def named_tests(cell: str) -> list[tuple[str, str]]:
    """File and function of each test in a cell; `::name` alone belongs to the file before it."""
    found = []
    path = ""
    for file, function in re.findall(r"`([\w/]*(?:\.py)?)::(\w+)`", cell):
        path = file or path
        found.append((path, function))
    return found


@pytest.mark.parametrize("cells", [row for row in ROWS if "::" in row[-2]], ids=lambda row: str(row[1]).strip())
def test_every_named_test_exists(cells: list[str]) -> None:
    tests = named_tests(cells[-2])
    assert cells[-2].count("::") == len(tests)
    for path, function in tests:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(?:async )?def {function}\(", text, re.MULTILINE), f"{path} has no {function}"


@pytest.mark.parametrize("number", TESTED)
def test_every_fault_has_a_test(number: int) -> None:
    (row,) = [row for row in ROWS if row[1].strip() == str(number)]
    assert named_tests(row[-2])
