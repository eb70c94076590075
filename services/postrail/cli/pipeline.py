"""One worker: its pipelines, each a log with all the services on it, and their start and drain.

A worker owns the pipeline of its own number, which takes mail in, and adopts those of numbers that no worker has any more
(the system ran with more workers before), which only drain. Neighbours: `supervisor` starts the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from postrail.core.config import Config
from postrail.ingress.service import IngressService
from postrail.ingress.shared_listeners import SharedListeners
from postrail.log.interface import Log
from postrail.log.sqlite import open_log
from postrail.routing.service import RoutingService
from postrail.scheduler.service import SchedulerService
from postrail.sender.service import SenderService
from postrail.shell import logs
from postrail.shell.blob_stores import open_blob_store
from postrail.shell.configuration import worker_directories
from postrail.shell.context import Context, Service
from postrail.shell.dns import Resolver
from postrail.shell.health import HealthServer
from postrail.signing.service import SigningService

LOG = logs.logger("worker")

LOG_FILE = "log.sqlite"
SLOTS_DIRECTORY = "slots"
HOUSEKEEPING_SECONDS = 3600.0


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


def owned_directories(config: Config, workers: int, index: int) -> list[Path]:
    """The pipelines of worker `index` of `workers`: its own first, then those that have no worker any more."""
    root = Path(config.data_directory)
    orphans = [path for path in worker_directories(config) if int(path.name[7:]) >= workers]
    return [root / f"worker-{index}", *(path for path in orphans if int(path.name[7:]) % workers == index)]


def share_count(config: Config, workers: int) -> int:
    """How many pipelines run on this machine, and so into how many parts every rate is divided."""
    return workers + sum(1 for path in worker_directories(config) if int(path.name[7:]) >= workers)


class Worker:
    """All pipelines of one process, and its health port."""

    def __init__(self, config: Config, workers: int, index: int, shared: SharedListeners | None = None) -> None:
        self._config = config
        self._workers = workers
        self._index = index
        self._shared = shared
        self._pipelines: list[Pipeline] = []
        self._started = False
        port = config.health.port
        self._health = HealthServer(config.health.address, port + index if port else 0, self.problems)
        self._resolver = Resolver(config.routing.dns)
        self._blobs = open_blob_store(config)
        self._housekeeping: asyncio.Task[None] | None = None

    def problems(self) -> Sequence[str]:
        """Why this worker is not ready, a line each."""
        if not self._started:
            return ["starting or stopping"]
        return [
            f"{service.name}: {problem}"
            for pipeline in self._pipelines
            for service in pipeline.services
            if (problem := service.problem()) is not None
        ]

    async def start(self) -> None:
        """Open the logs and start the services, downstream first, so that nothing is accepted that cannot go on."""
        await self._health.start()
        shares = share_count(self._config, self._workers)
        slots = Path(self._config.data_directory) / SLOTS_DIRECTORY
        slots.mkdir(parents=True, exist_ok=True)
        for number, directory in enumerate(owned_directories(self._config, self._workers, self._index)):
            directory.mkdir(parents=True, exist_ok=True)
            log = open_log(directory / LOG_FILE, self._config.log)
            pipeline = Pipeline(log)
            self._pipelines.append(pipeline)
            context = Context(self._config, log, self._blobs, self._resolver, shares, slots)
            downstream: list[Service] = [
                SigningService(context),
                RoutingService(context),
                SchedulerService(context),
                SenderService(context),
            ]
            for service in reversed(downstream):
                pipeline.services.insert(0, service)
                await service.start()
            if number == 0:
                ingress = IngressService(context, self._index, self._shared)
                pipeline.services.insert(0, ingress)
                await ingress.start()
        self._housekeeping = asyncio.create_task(self._keep_house())
        self._started = True
        LOG.info("ready", workers=self._workers, health_port=self._health.port, pipelines=len(self._pipelines))

    async def drain(self) -> None:
        """Stop as a pod is stopped: nothing new, nothing lost."""
        self._started = False
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        for pipeline in self._pipelines:
            await pipeline.drain()
        await self._health.close()
        LOG.info("stopped")
        logs.SINK.flush()

    async def _keep_house(self) -> None:
        """Delete blobs that are older than any mail can be."""
        while True:
            try:
                await self._blobs.delete_older_than(time.time() - self._config.log.retention_seconds)
            except OSError:
                LOG.exception("blob_cleaning_failed")
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
