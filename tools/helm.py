"""Helm for tests and development, built from its source by the Go tool chain, once.

`make helm` (or `python -m tools.helm`) builds it into the cache, which takes about two minutes of two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools import go_program

VERSION = "v3.19.0"
MODULE = "helm.sh/helm/v3/cmd/helm"
KUBERNETES = ("1", "34")
"""What it renders for where no cluster is asked; without these it believes in 1.20."""


def helm() -> Path:
    """Where the built program lies, or would lie."""
    return go_program.cache() / f"helm-{VERSION}" / "helm"


def _options() -> tuple[str, str]:
    places = ("helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules")
    settings = {"helm.sh/helm/v3/internal/version.version": VERSION}
    for part, number in zip(("Major", "Minor"), KUBERNETES, strict=True):
        settings |= {f"{place}.k8sVersion{part}": number for place in places}
    return "-ldflags", " ".join(f"-X {name}={value}" for name, value in settings.items())


def main() -> int:
    """Build, and print where it is."""
    try:
        print(go_program.build(MODULE, VERSION, helm(), _options()))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
