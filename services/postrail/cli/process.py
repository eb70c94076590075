"""What every process of Postrail has, whichever services it runs: a health port, signals, a drain, and the parts they share.

Owns the life of a process from its start to its exit status. Which logs it opens and which services it runs is said by
`pipeline` (embedded log) and `cluster` (Kafka log); `up` and `services` are the commands that start one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from postrail.cli.exit_status import EXIT_UNAVAILABLE
from postrail.core.config import Config
from postrail.log.interface import Log, LogError
from postrail.shell import logs
from postrail.shell.blob_stores import open_blob_store
from postrail.shell.configuration import ConfigurationError, make_data_directory
from postrail.shell.context import Service
from postrail.shell.dns import Resolver
from postrail.shell.health import HealthServer
from postrail.shell.tls_server import CertificateError

LOG = logs.logger("worker")

SWITCH_INTERVAL_SECONDS = 0.0005
GC_THRESHOLD = 50_000
HOUSEKEEPING_SECONDS = 3600.0
OTHER_FILES = 1000
"""Open files beside the submission connections: outbound connections, the log, blobs being written and read."""


@dataclass(slots=True)
class Pipeline:
    """A log and the services on it, in the order in which they drain."""

    log: Log
    services: list[Service] = field(default_factory=list)

    async def drain(self) -> None:
        """Drain all services, upstream first, then close the log."""
        for service in self.services:
            try:
                await service.drain()
            except Exception:
                LOG.exception("drain_failed", about=service.name)
        await self.log.close()


class Process(ABC):
    """A process with its pipelines.

    Args:
        index: of a worker among several of one machine: it listens on the health port plus this.
    """

    def __init__(self, config: Config, index: int = 0) -> None:
        self.config = config
        self.index = index
        self.pipelines: list[Pipeline] = []
        self.resolver = Resolver(config.routing.dns)
        self.blobs = open_blob_store(config)
        self._started = False
        port = config.health.port
        self._health = HealthServer(config.health.address, port + index if port else 0, self.problems)
        self._housekeeping: asyncio.Task[None] | None = None

    @abstractmethod
    async def open(self) -> None:
        """Open the logs and start the services, downstream first, so that nothing is accepted that cannot go on."""

    @abstractmethod
    def shown(self) -> dict[str, object]:
        """What the line `ready` of the log tells."""

    @property
    def keeps_house(self) -> bool:
        """Whether this process deletes old blobs."""
        return True

    def problems(self) -> Sequence[str]:
        """Why this process is not ready, a line each."""
        if not self._started:
            return ["starting or stopping"]
        found = [
            f"{service.name}: {problem}"
            for pipeline in self.pipelines
            for service in pipeline.services
            if (problem := service.problem()) is not None
        ]
        return found + [problem for pipeline in self.pipelines if (problem := pipeline.log.problem()) is not None]

    async def start(self) -> None:
        """Show that it is alive, then start all that is in it."""
        await self._health.start()
        await self.open()
        if self.keeps_house:
            self._housekeeping = asyncio.create_task(self._keep_house())
        self._started = True
        LOG.info("ready", health_port=self._health.port, **self.shown())

    async def drain(self) -> None:
        """Stop as a pod is stopped: nothing new, nothing lost."""
        self._started = False
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        for pipeline in self.pipelines:
            await pipeline.drain()
        await self._health.close()
        LOG.info("stopped")
        logs.SINK.flush()

    async def _keep_house(self) -> None:
        """Delete blobs that are older than any mail can be."""
        while True:
            try:
                await self.blobs.delete_older_than(time.time() - self.config.log.retention_seconds)
            except OSError:
                LOG.exception("blob_cleaning_failed")
            await asyncio.sleep(HOUSEKEEPING_SECONDS)


def run_process(
    config: Config,
    make: Callable[[], Process],
    *,
    worker: int | None = None,
    clients: int = 0,
    supervised: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status, 0 after a clean drain.

    Args:
        worker: its number, where the log's file belongs to several.
        clients: submission connections that it may have.
        supervised: it stops, too, when standard input, the supervisor's end of a pipe, is closed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    try:
        open_log_file(config, worker)
        make_data_directory(config)
        _allow_open_files(clients + OTHER_FILES)
        return uvloop.run(_serve(make(), supervised=supervised))
    except (ConfigurationError, CertificateError, LogError, OSError) as error:
        LOG.error("cannot_start", reason=str(error))
        print(f"postrail: cannot start: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE


def open_log_file(config: Config, worker: int | None) -> None:
    """Write the log where the configuration says.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        logs.SINK.open(config.logging.level, config.logging.file, worker)
    except OSError as error:
        raise ConfigurationError(f"logging.file: {config.logging.file} cannot be written: {error.strerror}") from error


def on_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT drains; the second ends at once."""

    def handle() -> None:
        if stop.is_set():
            logs.SINK.flush()
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)


def _allow_open_files(needed: int) -> None:
    """Raise the soft limit, often 1,024, to the hard one: beyond it no connection is accepted, whoever makes it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        advice = "raise LimitNOFILE of the service (or ulimit -Hn), or lower ingress.limits.max_connections"
        LOG.warning("few_open_files_allowed", allowed=hard, needed=needed, advice=advice)


async def _serve(process: Process, *, supervised: bool) -> int:
    stop = asyncio.Event()
    on_signals(stop)
    if supervised:
        await _watch_supervisor(stop)
    try:
        await process.start()
        gc.collect()
        gc.freeze()
        await stop.wait()
    finally:
        await process.drain()
    return 0


async def _watch_supervisor(stop: asyncio.Event) -> None:
    """Stop when standard input, the supervisor's end of a pipe, is closed."""

    class _Pipe(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            stop.set()

    await asyncio.get_running_loop().connect_read_pipe(_Pipe, sys.stdin)
