"""A real S3 server for tests: Versity's gateway over a folder, built from its source by the Go tool chain, once.

`make object-storage` (or `python -m tools.s3_server`) builds it into the cache, which takes about three minutes of two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools import go_program

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"
NAME = "versitygw"


def server() -> Path | None:
    """The program, or None when it was not built yet."""
    found = go_program.cache() / f"{NAME}-{VERSION}" / NAME
    return found if found.is_file() else None


def build() -> Path:
    """Build it, unless that was done.

    Raises:
        RuntimeError: there is no Go tool chain, or it failed; the message says what to do.
    """
    return go_program.build(MODULE, VERSION, go_program.cache() / f"{NAME}-{VERSION}" / NAME)


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
