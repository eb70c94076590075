"""`postrail ingress`, `postrail signing`, …: one service alone in a process.

That needs a log that several processes share. The embedded log belongs to one process, so these commands refuse with it
and say what to run instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, load

SERVICES = ("ingress", "signing", "routing", "sender", "scheduler")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare one command for each service."""
    for service in SERVICES:
        parser = subparsers.add_parser(service, help=f"run {service} alone (needs the Kafka log)")
        parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
        parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Refuse, after checking the configuration."""
    try:
        load(args.config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    print(
        f"{args.config}: postrail {args.command} runs one service alone, which needs the Kafka log, and this configuration "
        f"has the embedded log, which belongs to one process; run everything with: postrail up --config {args.config}",
        file=sys.stderr,
    )
    return EXIT_CONFIGURATION
