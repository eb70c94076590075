"""`postrail demo`: the whole system at work against simulated receivers on this machine, with an account of every message.

Starts a DNS server, receivers like the large providers (and some that are down, full, greylisting or do not exist), and the
real system; submits a mailing over SMTP; ends by itself. Exit status 0: every accepted message was delivered once or bounced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from postrail.cli.exit_status import EXIT_UNAVAILABLE, EXIT_USAGE
from postrail.demo.scenario import Outcome, Scenario
from postrail.demo.summary import Progress, show
from postrail.demo.system import SystemFailed

EXIT_INTERRUPTED = 130
PLAIN_WIDTH = 110


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("demo", help="show the system at work on this machine", description=__doc__)
    parser.add_argument(
        "--messages", type=_count, default=3000, metavar="N", help="how many to send; default: %(default)s"
    )
    parser.add_argument("--workers", type=_count, default=1, metavar="W", help="processes; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed makes the same mailing")
    parser.add_argument(
        "--duration", type=_count, default=120, metavar="SECONDS", help="give up waiting after; default: %(default)s"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep configuration, queue and logs in this new folder"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, progress on standard error"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; 0 when the books are even, 1 when not, 69 when it could not run, 130 when interrupted."""
    console = Console(stderr=args.json)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    try:
        folder = _folder(args.keep)
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        with Progress(console) as progress:
            scenario = Scenario(folder, args.messages, args.workers, args.seed, float(args.duration), progress.update)
            outcome = asyncio.run(_interruptible(scenario))
        show(outcome, console, args.keep)
    except (SystemFailed, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: interrupted; everything it started was stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps(outcome.as_json()))
    return 0 if outcome.is_good else 1


async def _interruptible(scenario: Scenario) -> Outcome:
    task = asyncio.ensure_future(scenario.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="postrail-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise OSError(f"{keep} is not empty; give --keep a new folder")
    return keep.resolve()
