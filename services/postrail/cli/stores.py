"""What the commands that look into the log share: opening the log of a configuration for reading, and how they print.

Read-only: works beside a running system and without one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_UNAVAILABLE
from postrail.core.config import Config
from postrail.log.inspect import Inspection
from postrail.log.interface import LogError
from postrail.log.sqlite import inspect
from postrail.log.sqlite.inspection import SqliteInspection
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, load


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config FILE` and `--json`."""
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def log_files(config: Config) -> list[Path]:
    """The log of every worker that ever ran with this data directory.

    Raises:
        ConfigurationError: there is none.
    """
    found = inspect.log_files(Path(config.data_directory))
    if not found:
        raise ConfigurationError(
            f"{config.data_directory}: there is no mail log here; start the system first, or correct data_directory"
        )
    return found


@asynccontextmanager
async def inspecting(config: Config) -> AsyncIterator[Inspection]:
    """The configuration's log, to be looked at.

    Raises:
        ConfigurationError: nothing was ever started with this data directory.
        LogUnavailable: the Kafka cluster cannot be reached.
    """
    if config.log.kafka is None or config.log.kind != "kafka":
        yield SqliteInspection(log_files(config))
        return
    from postrail.log.kafka.inspection import open_inspection  # noqa: PLC0415  # the client takes long to load, and few need it

    async with open_inspection(config.log.kafka) as inspection:
        yield inspection


def look(path: Path, ask: Callable[[Inspection], Awaitable[int]]) -> int:
    """Run a command that asks the log of a configuration file; what prevents it is printed.

    Args:
        ask: prints, and returns the exit status.
    """
    try:
        config = load(path)
    except ConfigurationError as error:
        return _refused(error, EXIT_CONFIGURATION)

    async def run() -> int:
        async with inspecting(config) as inspection:
            return await ask(inspection)

    try:
        return asyncio.run(run())
    except ConfigurationError as error:
        return _refused(error, EXIT_CONFIGURATION)
    except LogError as error:
        return _refused(error, EXIT_UNAVAILABLE if config.log.kind == "kafka" else EXIT_CONFIGURATION)


def _refused(error: Exception, status: int) -> int:
    print(error, file=sys.stderr)
    return status


def print_json(row: Mapping[str, object]) -> None:
    """One object on one line of standard output."""
    json.dump(row, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


def moment(at: float) -> str:
    """Unix seconds as a UTC time of day with its date."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.12 s`, `45 s`, `5 min`, `3.5 h`, `2.0 d`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell; the last column is not padded."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
