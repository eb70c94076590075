"""`postrail init`, `postrail config check`, `postrail password-hash`: getting to a configuration that works."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from importlib import resources
from pathlib import Path

from argon2 import PasswordHasher

from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, check_machine, load

TEMPLATE = "postrail.yaml.template"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the three commands."""
    init = subparsers.add_parser("init", help="write a commented configuration for real use")
    init.add_argument("file", type=Path, nargs="?", default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    init.add_argument("--hostname", default=None, help="the name this server announces; default: this machine's")
    init.add_argument("--domain", default="example.com", help="the sender domain; default: %(default)s")
    init.set_defaults(run=run_init)

    config = subparsers.add_parser("config", help="check a configuration")
    actions = config.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="say what is wrong with a configuration, on this machine")
    check.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    check.add_argument("--file-only", action="store_true", help="leave out the checks of this machine")
    check.set_defaults(run=run_check)

    password = subparsers.add_parser("password-hash", help="print the argon2id hash of a submitter's password")
    password.set_defaults(run=run_password_hash)


def run_init(args: argparse.Namespace) -> int:
    """Write the template; never over an existing file."""
    hostname = args.hostname or socket.getfqdn()
    text = (resources.files("postrail.cli") / TEMPLATE).read_text(encoding="utf-8")
    text = text.replace("@HOSTNAME@", hostname).replace("@DOMAIN@", args.domain)
    try:
        with args.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"{args.file}: exists already and is left as it is; name another file", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{args.file}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"{args.file} is written. Next:\n"
        f"  1. postrail dkim generate {args.domain} --selector mail1 --algorithm rsa --directory keys  # publish what it prints\n"
        "  2. postrail password-hash                                # into submitters.password_hash\n"
        f"  3. edit {args.file}: certificate, source addresses, domains\n"
        f"  4. postrail config check --config {args.file}\n"
        f"  5. postrail up --config {args.file}"
    )
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Say what is wrong, a line each; exit status 78 when anything is."""
    try:
        config = load(args.config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    problems = [] if args.file_only else check_machine(config)
    for problem in problems:
        print(f"{args.config}: {problem}", file=sys.stderr)
    if problems:
        return EXIT_CONFIGURATION
    print(f"{args.config}: all right")
    return 0


def run_password_hash(args: argparse.Namespace) -> int:
    """Read a password (twice from a terminal, otherwise one line) and print its hash."""
    del args
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("Again: "):
            print("password-hash: the two differ; nothing is printed", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        print("password-hash: an empty password is refused", file=sys.stderr)
        return 1
    print(PasswordHasher().hash(password))
    return 0
