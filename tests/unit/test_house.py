"""Checks the rules of the house that no linter knows: what the locks, the CI's packages and the documents must agree on."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-operator.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)
REQUIRED_TOOL = re.compile(r"""require_tool\(\s*["']([^"']+)["']""")


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {canonicalize_name(match["name"]): match["version"] for match in PINNED.finditer(text)}


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_index_and_no_folder(lock: str) -> None:
    options = re.findall(r"^\s*(?:-\S+|.*://).*$", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [line for line in options if not line.strip().startswith("--hash=")] == []


def test_runtime_lock_holds_the_runtime_dependencies_and_no_tool() -> None:
    locked = pins("requirements.lock").keys()
    assert names(PROJECT["dependencies"]) - locked == set()
    assert (names(EXTRAS["dev"]) | names(EXTRAS["operator"])) & locked == set()


@pytest.mark.parametrize(
    ("larger", "smaller"),
    [("requirements-operator.lock", "requirements.lock"), ("requirements-dev.lock", "requirements-operator.lock")],
)
def test_each_lock_holds_the_smaller_one(larger: str, smaller: str) -> None:
    pinned = pins(larger)
    assert {name: version for name, version in pins(smaller).items() if pinned.get(name) != version} == {}


def test_each_extra_is_in_its_lock() -> None:
    assert names(EXTRAS["operator"]) - pins("requirements-operator.lock").keys() == set()
    assert names(EXTRAS["dev"]) - pins("requirements-dev.lock").keys() == set()


def test_every_dependency_is_explained() -> None:
    explained = set(
        re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    declared = names([*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)])
    assert {canonicalize_name(name) for name in explained} == declared


def test_ci_installs_the_packages_of_every_required_tool() -> None:
    suites = [path for path in python_files("tests") if path != Path(__file__)]
    required = {name for path in suites for name in REQUIRED_TOOL.findall(path.read_text(encoding="utf-8"))}
    built = required & tools.BUILT_BY_MAKE.keys()
    required -= built
    assert required - tools.DEBIAN_PACKAGES.keys() == set(), "add the tool to DEBIAN_PACKAGES in tests/support/tools.py"
    targets = (ROOT / ".ci" / "run").read_text(encoding="utf-8").split()
    assert {tools.BUILT_BY_MAKE[name] for name in built} - set(targets) == set(), "let .ci/run build it"
    lines = (ROOT / ".ci" / "packages").read_text(encoding="utf-8").splitlines()
    installed = {words[0] for line in lines if (words := line.partition("#")[0].split())}
    assert {package for name in required for package in tools.DEBIAN_PACKAGES[name].split()} - installed == set()


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_every_module_of_the_services_says_what_it_owns() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files("services", "operator")
        if not path.name.endswith("_pb2.py") and ast.get_docstring(ast.parse(path.read_bytes())) is None
    ]
    assert silent == []


def test_every_target_of_the_makefile_is_listed_by_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    assert targets - set(re.findall(r"^([a-z0-9-]+):.*## \S", text, re.MULTILINE)) == set()


def test_missing_tool_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(
        pytest.skip.Exception, match="no-such-daemon is missing: it receives; on Debian: apt-get install"
    ):
        tools.require_tool("no-such-daemon", "it receives")


def test_missing_tool_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-daemon is missing"):
        tools.require_tool("no-such-daemon", "it receives")


def test_tool_outside_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    daemon = tmp_path / "receiverd"
    daemon.write_text("#!/bin/sh\n")
    daemon.chmod(0o755)
    monkeypatch.setattr(tools, "_FOLDERS_OUTSIDE_PATH", (str(tmp_path),))
    assert tools.require_tool("receiverd", "it receives") == str(daemon)
