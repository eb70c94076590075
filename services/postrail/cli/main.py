"""The `postrail` command: its sub-commands and their exit statuses.

Exit status 0: done; 1: it did not work, and standard error says why; 64: wrong usage; 69: something that is needed is
not there; 75: try again later; 78: the configuration is wrong (sysexits.h).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import postrail
from postrail.cli import configure, dead_letters, demo, dkim, explain, queue, send_test, services, topics, trace, up
from postrail.cli.exit_status import EXIT_USAGE
from postrail.shell import openssl_cpu

_SIGNING_COMMANDS = frozenset({"up", "signing"})
"""Those that sign mail."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(prog="postrail", description="Mail delivery for a company's own services.")
    top.add_argument("--version", action="version", version=f"postrail {postrail.__version__}")
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (up, demo, configure, send_test, trace, queue, dead_letters, explain, dkim, topics, services):
        command.add_parser(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = parser().parse_args(argv)
    if argv is None and args.command in _SIGNING_COMMANDS:
        _choose_rsa_routine()
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _choose_rsa_routine() -> None:
    """Start this process again with OpenSSL's faster routine, where there is one that it would not choose itself."""
    value = openssl_cpu.setting(os.environ, openssl_cpu.read_cpu_info())
    if value is not None:
        os.environ[openssl_cpu.VARIABLE] = value
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # our own arguments


if __name__ == "__main__":
    raise SystemExit(main())
