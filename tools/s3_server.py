"""A real S3 server for tests: Versity's gateway over a folder, built from its source by the Go tool chain, once.

`make object-storage` (or `python -m tools.s3_server`) builds it into the cache, which takes about three minutes of two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"
NAME = "versitygw"
_GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")


def cache() -> Path:
    """Where the built program lies."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "postrail" / f"{NAME}-{VERSION}"


def server() -> Path | None:
    """The program, or None when it was not built yet."""
    found = cache() / NAME
    return found if found.is_file() else None


def build() -> Path:
    """Build it, unless that was done.

    Raises:
        RuntimeError: there is no Go tool chain, or it failed; the message says what to do.
    """
    found = server()
    if found is not None:
        return found
    go = shutil.which("go") or shutil.which("go", path=os.pathsep.join(_GO_PLACES))
    if go is None:
        raise RuntimeError("go is missing: install the Go tool chain (on Debian: apt-get install golang-go)")
    folder = cache().with_name(f".{NAME}-{os.getpid()}")
    try:
        done = subprocess.run(
            [go, "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"},
            cwd=Path.home(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"go install {MODULE}@{VERSION} failed; its output is above")
        cache().mkdir(parents=True, exist_ok=True)
        (folder / NAME).replace(cache() / NAME)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return cache() / NAME


def main() -> int:
    """Build, and print where it is."""
    try:
        print(build())
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
