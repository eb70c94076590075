"""The command line of the benchmark: ``python -m bench [compare|verify|backlog|memory|scaling|soak]``."""

import argparse
import logging
import sys
from pathlib import Path

from bench import process_tree, workplace
from bench.backlog import measure_backlog
from bench.comparison import Work, compare
from bench.load import BenchmarkError
from bench.memory import measure_memory
from bench.report import machine_facts, render
from bench.scaling import deviations, measure_scaling, table
from bench.soak import soak
from bench.systems import SYSTEMS, System
from bench.verify import verify

_RESULTS = Path(__file__).with_name("results.md")
_MEMORY_LIMIT_BYTES = 300_000_000
_BACKLOG_LEAST_RATIO = 0.9
_SCALING_WORST = 0.15


def main() -> int:
    """Run the chosen measurement; exit status 1 says that a check failed, 2 that it could not run."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run = _COMMANDS[options.what]
    try:
        return run(options)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Postrail beside Postfix+OpenDKIM and Haraka.")
    parser.add_argument("what", nargs="?", default="compare", choices=tuple(_COMMANDS))
    parser.add_argument("--systems", type=_systems, help="comma-separated: " + ",".join(SYSTEMS))
    parser.add_argument("--messages", type=int, help="messages a run (10000; memory: 60)")
    parser.add_argument("--sessions", type=_numbers, default=[20, 50], help="comma-separated numbers of sessions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, help="bytes of a body (10240; memory: 25000000)")
    parser.add_argument("--waiting", type=int, default=200_000, help="backlog: messages waiting in the queue")
    parser.add_argument("--seconds", type=float, default=3600, help="soak: how long")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="compare: where the results go")
    return parser.parse_args()


def _systems(text: str) -> list[type[System]]:
    try:
        return [SYSTEMS[name] for name in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"no system {error}; there are {', '.join(SYSTEMS)}") from error


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _compare(options: argparse.Namespace) -> int:
    systems: list[type[System]] = options.systems or list(SYSTEMS.values())
    work = Work(options.messages or 10_000, options.size or 10_240, options.sessions, options.rounds)
    with workplace.directory() as directory:
        facts = machine_facts(directory)
    for system in systems:
        system.version()  # a missing part shows now, not after half an hour
    stolen_before, all_before = process_tree.machine_ticks()
    measurements = compare(systems, work)
    stolen, all_ticks = process_tree.machine_ticks()
    facts.append(
        f"the host withheld {(stolen - stolen_before) / (all_ticks - all_before):.1%} of the CPU during the run"
    )
    page = render(measurements, work, systems, facts)
    options.output.write_text(page)
    print(page)
    return 0


def _verify(options: argparse.Namespace) -> int:
    systems: list[type[System]] = options.systems or [SYSTEMS["postrail"]]
    verdicts = [
        verify(
            system,
            messages=options.messages or 10_000,
            sessions=options.sessions[0],
            size_bytes=options.size or 10_240,
        )
        for system in systems
    ]
    return 0 if all(verdict.good for verdict in verdicts) else 1


def _backlog(options: argparse.Namespace) -> int:
    result = measure_backlog(
        waiting=options.waiting,
        messages=options.messages or 10_000,
        size_bytes=options.size or 10_240,
        rounds=options.rounds,
    )
    print(f"rate with {result.waiting:,} messages waiting: {result.ratio:.3f} of that with an empty queue")
    return 0 if result.ratio >= _BACKLOG_LEAST_RATIO else 1


def _memory(options: argparse.Namespace) -> int:
    result = measure_memory(
        messages=options.messages or 60, sessions=options.sessions[0], size_bytes=options.size or 25_000_000
    )
    print(f"largest worker: {result.largest_bytes / 1e6:.0f} MB (limit {_MEMORY_LIMIT_BYTES / 1e6:.0f} MB)")
    return 0 if result.largest_bytes < _MEMORY_LIMIT_BYTES else 1


def _soak(options: argparse.Namespace) -> int:
    result = soak(seconds=options.seconds, size_bytes=options.size or 10_240)
    print("memory or open files keep growing" if result.grows else "memory and open files are steady")
    return 1 if result.grows else 0


def _scaling(options: argparse.Namespace) -> int:
    work = Work(options.messages or 10_000, options.size or 10_240, options.sessions, options.rounds)
    found = measure_scaling(work, options.sessions[0])
    print("\n".join(table(found)))
    worst = deviations(found)
    print("work done per CPU second, with 2 and 4 processes against one:")
    print("\n".join(f"within {deviation:.1%}: {what}" for what, deviation in worst.items()))
    return 0 if max(worst.values()) <= _SCALING_WORST else 1


_COMMANDS = {
    "compare": _compare,
    "verify": _verify,
    "backlog": _backlog,
    "memory": _memory,
    "scaling": _scaling,
    "soak": _soak,
}

if __name__ == "__main__":
    sys.exit(main())
