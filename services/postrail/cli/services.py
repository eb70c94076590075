"""`postrail ingress`, `postrail signing`, …: one service alone in a process.

That needs a log that several processes share. The embedded log belongs to one process, so with it these commands refuse, and
say what to run instead. Scaling is starting more of them: the log shares its partitions out among all that run.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from postrail.cli.cluster import Member
from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.cli.process import run_process
from postrail.core.config import Config
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, load

SERVICES = ("ingress", "signing", "routing", "sender", "scheduler")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare one command for each service."""
    for service in SERVICES:
        parser = subparsers.add_parser(service, help=f"run {service} alone (needs the Kafka log)")
        parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
        parser.add_argument(
            "--health-port", type=int, metavar="PORT", help="where several run on one machine; default: health.port"
        )
        if service == "sender":
            parser.add_argument("--pool", metavar="P", help="send this pool's mail only; default: all pools'")
            parser.add_argument(
                "--destination",
                action="append",
                metavar="D",
                help="send to this destination group only, can be given several times; default: to all groups",
            )
        parser.set_defaults(run=run, pool=None, destination=None)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; the exit status is 0 after a clean drain."""
    try:
        config = load(args.config)
        if config.log.kind != "kafka":
            raise ConfigurationError(
                f"{args.config}: postrail {args.command} runs one service alone, which needs the Kafka log (log.kind: kafka), "
                "and this configuration has the embedded log, which belongs to one process; run everything with: "
                f"postrail up --config {args.config}"
            )
        _check_sender(config, args)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    if args.health_port is not None:
        config = config.model_copy(update={"health": config.health.model_copy(update={"port": args.health_port})})
    clients = config.ingress.limits.max_connections if args.command == "ingress" else 0
    make = partial(Member, config, [args.command], pool=args.pool, groups=args.destination)
    return run_process(config, make, clients=clients)


def _check_sender(config: Config, args: argparse.Namespace) -> None:
    if args.pool is not None and args.pool not in config.pools:
        raise ConfigurationError(f"--pool {args.pool}: the configuration has {', '.join(config.pools)}")
    unknown = next((group for group in args.destination or () if group not in config.routing.groups), None)
    if unknown is not None:
        raise ConfigurationError(
            f"--destination {unknown}: the configuration has {', '.join(config.routing.groups)} (routing.groups)"
        )
