"""Builds a program from its Go module, once, into the cache. The module's content is what Go's checksum database says it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")


def cache() -> Path:
    """Where built programs lie, each in a folder of its own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")) / "postrail"


def build(module: str, version: str, target: Path, options: Sequence[str] = ()) -> Path:
    """Build the program to `target`, unless it is there.

    Args:
        module: the path of its main package.
        options: of `go install`.

    Raises:
        RuntimeError: there is no Go tool chain, or it failed; the message says what to do.
    """
    if target.is_file():
        return target
    go = shutil.which("go") or shutil.which("go", path=os.pathsep.join(_GO_PLACES))
    if go is None:
        raise RuntimeError("go is missing: install the Go tool chain (on Debian: apt-get install golang-go)")
    folder = target.parent.with_name(f".{target.name}-{os.getpid()}")
    try:
        done = subprocess.run(
            [go, "install", *options, f"{module}@{version}"],
            env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"},
            cwd=Path.home(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"go install {module}@{version} failed; its output is above")
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / module.rsplit("/", 1)[1]).replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target
