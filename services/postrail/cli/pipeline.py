"""One worker on the embedded log: its pipelines, each a log with all the services on it.

A worker owns the pipeline of its own number, which takes mail in, and adopts those of numbers that no worker has any more
(the system ran with more workers before), which only drain. Neighbours: `process` (its life), `up` starts the workers.
"""

from __future__ import annotations

from pathlib import Path

from postrail.cli.process import Pipeline, Process
from postrail.core.config import Config
from postrail.ingress.service import IngressService
from postrail.ingress.shared_listeners import SharedListeners
from postrail.log.sqlite import open_log
from postrail.routing.service import RoutingService
from postrail.scheduler.service import SchedulerService
from postrail.sender.service import SenderService
from postrail.shell.configuration import worker_directories
from postrail.shell.context import Context, Service
from postrail.signing.service import SigningService

LOG_FILE = "log.sqlite"
SLOTS_DIRECTORY = "slots"


def owned_directories(config: Config, workers: int, index: int) -> list[Path]:
    """The pipelines of worker `index` of `workers`: its own first, then those that have no worker any more."""
    root = Path(config.data_directory)
    orphans = [path for path in worker_directories(config) if int(path.name[7:]) >= workers]
    return [root / f"worker-{index}", *(path for path in orphans if int(path.name[7:]) % workers == index)]


def share_count(config: Config, workers: int) -> int:
    """How many pipelines run on this machine, and so into how many parts every rate is divided."""
    return workers + sum(1 for path in worker_directories(config) if int(path.name[7:]) >= workers)


class Worker(Process):
    """All pipelines of one process."""

    def __init__(self, config: Config, workers: int, index: int, shared: SharedListeners | None = None) -> None:
        super().__init__(config, index)
        self._workers = workers
        self._shared = shared

    async def open(self) -> None:
        """As `Process.open`: the services of each pipeline, ingress in its own only."""
        shares = share_count(self.config, self._workers)
        slots = Path(self.config.data_directory) / SLOTS_DIRECTORY
        slots.mkdir(parents=True, exist_ok=True)
        for number, directory in enumerate(owned_directories(self.config, self._workers, self.index)):
            directory.mkdir(parents=True, exist_ok=True)
            log = open_log(directory / LOG_FILE, self.config.log)
            pipeline = Pipeline(log)
            self.pipelines.append(pipeline)
            context = Context(self.config, log, self.blobs, self.resolver, shares, slots)
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
                ingress = IngressService(context, self.index, self._shared)
                pipeline.services.insert(0, ingress)
                await ingress.start()

    def shown(self) -> dict[str, object]:
        """As `Process.shown`."""
        return {"workers": self._workers, "pipelines": len(self.pipelines)}
