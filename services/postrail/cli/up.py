"""`postrail up`: the whole system on this machine, in one process or in several workers.

With one worker this process is the worker. With more it is a supervisor: it starts the workers, starts again the ones that
die, with a growing pause, and passes on the signal to stop. A worker whose supervisor has gone drains and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from postrail.cli.cluster import Member
from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_UNAVAILABLE
from postrail.cli.pipeline import Worker
from postrail.cli.process import Process, on_signals, open_log_file, run_process
from postrail.core.config import Config
from postrail.ingress.shared_listeners import ABSENT, SessionCounts, SharedListeners, bind
from postrail.shell import logs
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, check_machine, load, make_data_directory

LOG = logs.logger("supervisor")
RESTART_PAUSES_SECONDS = (0.2, 1.0, 5.0, 15.0, 60.0)
START_SECONDS = 10.0
"""How long workers that have started take no connections because others have not."""
STEADY_SECONDS = 60.0
KILL_AFTER_SECONDS = 30.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("up", help="run everything on this machine", description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: workers in the configuration")
    parser.add_argument("--worker-index", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--inherited", type=int, nargs="+", metavar="FD", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; the exit status is 0 after a clean drain."""
    try:
        config = load(args.config)
        workers = _worker_count(args.workers, config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    if args.worker_index is not None:
        *listening, table = args.inherited
        shared = SharedListeners.inherited(listening, table, workers, args.worker_index)
        return _work(config, workers, args.worker_index, shared)
    problems = check_machine(config)
    if problems:
        print("\n".join(f"{args.config}: {problem}" for problem in problems), file=sys.stderr)
        return EXIT_CONFIGURATION
    if workers == 1:
        return _work(config, 1, 0, None)
    try:
        make_data_directory(config)
        return uvloop.run(_Supervisor(args.config, config, workers).run())
    except (ConfigurationError, OSError) as error:
        print(f"postrail: cannot start: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE


def _worker_count(asked: int | None, config: Config) -> int:
    workers = config.workers if asked is None else asked
    if not 1 <= workers <= 64:
        raise ConfigurationError(f"--workers {workers}: must be between 1 and 64")
    if workers > 1 and any(listener.port == 0 for listener in config.ingress.listeners):
        raise ConfigurationError("ingress.listeners: port 0 works with one worker only; give the ports")
    return workers


def _work(config: Config, workers: int, index: int, shared: SharedListeners | None) -> int:
    make: Callable[[], Process] = partial(Worker, config, workers, index, shared)
    if config.log.kind == "kafka":
        make = partial(Member, config, workers=workers, index=index, shared=shared)
    return run_process(
        config,
        make,
        worker=index if workers > 1 else None,
        clients=config.ingress.limits.max_connections // workers,
        supervised=shared is not None,
    )


class _Supervisor:
    """Keeps the workers running."""

    def __init__(self, path: Path, config: Config, workers: int) -> None:
        self._path = path
        self._config = config
        self._workers = workers
        self._stop = asyncio.Event()
        self._listening = bind(config.ingress.listeners)
        self._counts = SessionCounts.create(workers, Path(config.data_directory))

    async def run(self) -> int:
        """Until the signal; 0 when every worker drained cleanly, otherwise 1."""
        try:
            open_log_file(self._config, None)
        except ConfigurationError as error:
            print(f"{self._path}: {error}", file=sys.stderr)
            return EXIT_CONFIGURATION
        on_signals(self._stop)
        results = await asyncio.gather(*(self._keep(index) for index in range(self._workers)))
        logs.SINK.flush()
        return 0 if all(status == 0 for status in results) else 1

    async def _keep(self, index: int) -> int:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_at = loop.time()
            process = await self._spawn(index)
            await _first(process.wait(), self._stop.wait())
            self._counts.set(index, ABSENT)
            if self._stop.is_set():
                for listening in self._listening:
                    listening.close()
                return await self._end(process)
            if loop.time() - started_at > STEADY_SECONDS:
                failures = 0
            pause = RESTART_PAUSES_SECONDS[min(failures, len(RESTART_PAUSES_SECONDS) - 1)]
            failures += 1
            LOG.error("worker_ended", about=index, status=process.returncode, restart_in_seconds=pause)
            await _first(asyncio.sleep(pause), self._stop.wait())
            if self._stop.is_set():
                return 1

    async def _spawn(self, index: int) -> asyncio.subprocess.Process:
        inherited = [*(listening.fileno() for listening in self._listening), self._counts.descriptor]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "postrail",
            "up",
            "--config",
            str(self._path),
            "--workers",
            str(self._workers),
            "--inherited",
            *map(str, inherited),
            "--worker-index",
            str(index),
            pass_fds=inherited,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(self._config.delivery.drain_seconds + KILL_AFTER_SECONDS):
                return await process.wait()
        except TimeoutError:
            LOG.error("worker_killed", reason="did not drain in time; its unfinished mail is in its log")
            process.kill()
            return await process.wait()


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
