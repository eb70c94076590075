"""`postrail topics`: prepares the topics of a Kafka cluster for a configuration, and says what is wrong with them.

`plan` shows what would be done, `apply` does it, `check` fails when a topic could lose mail: with such topics no service starts.
The embedded log needs none of it. Exit status 0: done, or nothing to do; 1: mail could be lost, or it could not be done; 69: no
broker answers; 78: the configuration is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_UNAVAILABLE
from postrail.cli.stores import add_config_option, print_json
from postrail.core.config import Config
from postrail.core.topic_plan import Action, AlterSettings, Create, Plan, Problem, RaisePartitions, plan
from postrail.log.interface import LogUnavailable
from postrail.shell.configuration import ConfigurationError, load

EXIT_UNFIT = 1
WAIT_SECONDS = 2.0
"""Between two tries while no broker answers."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its three verbs."""
    parser = subparsers.add_parser("topics", help="prepare and check the topics of a Kafka log", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("plan", "show what apply would do, and what is wrong"),
        ("apply", "create topics that are missing and correct settings"),
        ("check", "fail when a topic could lose mail"),
    ):
        one = verbs.add_parser(verb, help=text, description=text)
        add_config_option(one)
        if verb != "check":
            one.add_argument(
                "--raise-partitions",
                action="store_true",
                help="also give more partitions to topics that have too few; keys move, so do it while no mail is under way",
            )
        if verb == "apply":
            one.add_argument(
                "--wait-seconds",
                type=float,
                default=0.0,
                metavar="SECONDS",
                help="try again for so long while no broker answers",
            )
        one.set_defaults(run=run, raise_partitions=False, wait_seconds=0.0)


def run(args: argparse.Namespace) -> int:
    """Run one verb."""
    try:
        config = load(args.config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    if config.log.kind == "embedded":
        nothing = "the embedded log makes its topics itself: there is nothing to do"
        print_json({"kind": "embedded", "text": nothing}) if args.json else print(nothing)
        return 0
    from postrail.log.kafka.admin import TopicsUnfit  # noqa: PLC0415  # the client takes long to load, and few commands need it

    # What no broker answers is said by us, once, in a sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    until = time.monotonic() + args.wait_seconds
    while True:
        try:
            return asyncio.run(_run(args, config))
        except TopicsUnfit as error:
            print(error, file=sys.stderr)
            return EXIT_UNFIT
        except LogUnavailable as error:
            print(error, file=sys.stderr)
            if time.monotonic() >= until:
                return EXIT_UNAVAILABLE
        time.sleep(WAIT_SECONDS)


async def _run(args: argparse.Namespace, config: Config) -> int:
    from postrail.log.kafka.admin import open_topic_admin  # noqa: PLC0415

    async with open_topic_admin(config) as admin:
        found = plan(config, await admin.observe(), raise_partitions=args.raise_partitions)
        if args.verb == "plan":
            _print_plan(found, config, args.config, as_json=args.json)
            return 0
        if args.verb == "apply":
            done = found.actions
            await admin.apply(done)
            _print_actions(done, config, done=True, as_json=args.json)
            found = plan(config, await admin.observe(), raise_partitions=args.raise_partitions)
            if not (args.json or done):
                print("there was nothing to do")
    _print_problems(found.problems, args.config, as_json=args.json)
    if args.verb == "check" and not (args.json or found.dangers):
        print("no topic can lose mail")
    return EXIT_UNFIT if found.dangers else 0


def _print_plan(found: Plan, config: Config, path: Path, *, as_json: bool) -> None:
    _print_actions(found.actions, config, done=False, as_json=as_json)
    prefix = config.log.kafka.topic_prefix if config.log.kafka else ""
    created = {prefix + action.spec.name for action in found.actions if isinstance(action, Create)}
    _print_problems(tuple(problem for problem in found.problems if problem.topic not in created), path, as_json=as_json)
    if as_json:
        return
    if found.actions:
        print(f"to do this: postrail topics apply --config {path}")
    else:
        print("there is nothing to do")


def _print_actions(actions: tuple[Action, ...], config: Config, *, done: bool, as_json: bool) -> None:
    prefix = config.log.kafka.topic_prefix if config.log.kafka else ""
    for action in actions:
        if as_json:
            print_json({"kind": "done" if done else "action", **_fields(action, prefix)})
        else:
            for line in _tell(action, prefix, done=done):
                print(line)


def _fields(action: Action, prefix: str) -> Mapping[str, object]:
    match action:
        case Create(spec):
            sizes = {"partitions": spec.partitions, "replication_factor": spec.replication_factor}
            return {"action": "create", "topic": prefix + spec.name, **sizes, "settings": spec.settings}
        case RaisePartitions(topic, before, after):
            return {"action": "raise-partitions", "topic": prefix + topic, "before": before, "after": after}
        case AlterSettings(topic, before_settings, after_settings):
            return {"action": "alter", "topic": prefix + topic, "before": before_settings, "after": after_settings}


def _tell(action: Action, prefix: str, *, done: bool) -> Iterator[str]:
    match action:
        case Create(spec):
            size = f"{spec.partitions} partitions, replication factor {spec.replication_factor}"
            yield f"{'created' if done else 'create'} {prefix}{spec.name}: {size}, kept {_kept(spec.retention_seconds)}"
        case RaisePartitions(topic, before, after):
            yield f"{'raised' if done else 'raise'} {prefix}{topic} from {before} to {after} partitions"
        case AlterSettings(topic, before_settings, after_settings):
            for name, value in after_settings.items():
                yield f"{'set' if done else 'change'} {prefix}{topic}: {name}={value} (was {before_settings[name] or 'not told'})"


def _print_problems(problems: tuple[Problem, ...], path: Path, *, as_json: bool) -> None:
    """Dangers go to standard error, as they make the command fail."""
    for problem in problems:
        repair = problem.repair.replace("postrail topics apply", f"postrail topics apply --config {path}")
        if as_json:
            fields = {"topic": problem.topic, "severity": problem.severity, "problem": problem.what, "repair": repair}
            print_json({"kind": "problem", **fields})
        else:
            where = f"topic {problem.topic}: " if problem.topic else ""
            print(f"{problem.severity}: {where}{problem.what}; {repair}", file=sys.stderr)


def _kept(seconds: float | None) -> str:
    return "without end" if seconds is None else f"{seconds / 86400:.3g} days"
