"""Brings Kafka's jars into a cache folder, once for the machine.

Owns the versions and that folder: it appears whole or not at all, and processes that want it at once fetch it once. Never
starts a broker; `nodes` does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

KAFKA_VERSION = "4.1.0"
SCALA_VERSION = "2.13"
LOG4J_VERSION = "2.24.3"
DEPENDENCY_PLUGIN_VERSION = "3.8.1"

FOLDER_VARIABLE = "POSTRAIL_KAFKA_HOME"
"""Names a folder to use instead of the one in the cache; its jars are fetched if it does not exist."""

TRIES = 4
_FIRST_WAIT_SECONDS = 5.0
_TRY_TIMEOUT_SECONDS = 600.0
_HERE = Path(__file__).parent


class KafkaMissing(Exception):
    """There is no Kafka to run; the text says why and what to do."""


def folder() -> Path:
    """Where Kafka's jars are, or will be."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "postrail" / f"kafka-{KAFKA_VERSION}"


def fetched() -> bool:
    """Whether the jars are there already."""
    return folder().is_dir()


def fetch() -> Path:
    """The folder of the jars, which are fetched first where they are missing.

    Raises:
        KafkaMissing: Maven is missing, or could not bring them.
    """
    target = folder()
    if target.is_dir():
        return target
    if shutil.which("mvn") is None:
        raise KafkaMissing(
            f"mvn is missing: it brings Kafka {KAFKA_VERSION} into {target}; on Debian: apt-get install maven"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _bring(target)
    return target


def _bring(target: Path) -> None:
    """Fetch into a folder beside the target, and rename it when it is complete."""
    partial = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=target.parent))
    try:
        _run_maven(partial)
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _run_maven(libraries: Path) -> None:
    """Run Maven until it succeeds, a few times: it keeps what it has, so that a try goes on where the last one failed."""
    command = [
        *("mvn", "--batch-mode", "--quiet", "--update-snapshots", "--file", str(_HERE / "pom.xml")),
        *(f"-Dkafka.version={KAFKA_VERSION}", f"-Dscala.version={SCALA_VERSION}", f"-Dlog4j.version={LOG4J_VERSION}"),
        f"org.apache.maven.plugins:maven-dependency-plugin:{DEPENDENCY_PLUGIN_VERSION}:copy-dependencies",
        *("-DincludeScope=runtime", f"-DoutputDirectory={libraries}"),
    ]
    output = ""
    for attempt in range(TRIES):
        time.sleep(_FIRST_WAIT_SECONDS * (2**attempt - 1))
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TRY_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            output = f"(it did not end within {_TRY_TIMEOUT_SECONDS:g} s)"
            continue
        if done.returncode == 0:
            return
        output = done.stdout
    end = "\n".join(output.strip().splitlines()[:12])
    raise KafkaMissing(
        f"Maven could not bring Kafka {KAFKA_VERSION} in {TRIES} tries; check that Maven Central can be reached "
        f"(~/.m2/settings.xml may name a mirror), then run: make kafka\nMaven said:\n{end}"
    )
