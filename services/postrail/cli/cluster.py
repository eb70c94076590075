"""A process on the Kafka log: one service alone, or several, or all of them.

Owns the composition: which services, on one log that all processes share. Refuses to start on topics that could lose mail.
Partitions decide who does what, so nothing else is shared: every limit of a source address and site holds in the process that
owns its partition. Neighbours: `process` (its life), `services` and `up` (the commands).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from postrail.cli.pipeline import SLOTS_DIRECTORY
from postrail.cli.process import Pipeline, Process
from postrail.core.config import Config
from postrail.core.log_config import LogConfig
from postrail.ingress.service import IngressService
from postrail.ingress.shared_listeners import SharedListeners
from postrail.routing.service import RoutingService
from postrail.scheduler.service import SchedulerService
from postrail.sender.service import SenderService
from postrail.shell.context import Context, Service
from postrail.signing.service import SigningService

ALL = ("ingress", "signing", "routing", "scheduler", "sender")
"""The services, in the order in which they drain."""


class Member(Process):
    """A process with some of the services.

    Args:
        services: names of `ALL`.
        pool, groups: what a sender sends; None: all of the configuration.
        workers, index: where several of the same run on this machine.
    """

    def __init__(
        self,
        config: Config,
        services: Sequence[str] = ALL,
        *,
        pool: str | None = None,
        groups: Sequence[str] | None = None,
        workers: int = 1,
        index: int = 0,
        shared: SharedListeners | None = None,
    ) -> None:
        super().__init__(config, index)
        self._names = [name for name in ALL if name in services]
        self._pool = pool
        self._groups = groups
        self._workers = workers
        self._shared = shared

    @property
    def keeps_house(self) -> bool:
        """As `Process.keeps_house`: only where mail comes in."""
        return "ingress" in self._names

    async def open(self) -> None:
        """As `Process.open`.

        Raises:
            LogError: the cluster cannot be reached, or its topics could lose mail.
        """
        from postrail.log.kafka import open_kafka_log  # noqa: PLC0415  # the client takes long to load, and not all need it
        from postrail.log.kafka.admin import check_topics  # noqa: PLC0415

        await check_topics(self.config)
        log = await open_kafka_log(_log_config(self.config.log, self._workers, self.index))
        pipeline = Pipeline(log)
        self.pipelines.append(pipeline)
        slots = Path(self.config.data_directory) / SLOTS_DIRECTORY
        slots.mkdir(parents=True, exist_ok=True)
        context = Context(self.config, log, self.blobs, self.resolver, 1, slots)
        for name in reversed(self._names):
            service = self._make(name, context)
            pipeline.services.insert(0, service)
            await service.start()

    def shown(self) -> dict[str, object]:
        """As `Process.shown`."""
        return {"services": ",".join(self._names), "workers": self._workers}

    def _make(self, name: str, context: Context) -> Service:
        if name == "ingress":
            return IngressService(context, self.index, self._shared)
        if name == "sender":
            return SenderService(context, self._pool, self._groups)
        simple: dict[str, Callable[[Context], Service]] = {
            "signing": SigningService,
            "routing": RoutingService,
            "scheduler": SchedulerService,
        }
        return simple[name](context)


def _log_config(config: LogConfig, workers: int, index: int) -> LogConfig:
    """With a name for each of several workers, where this machine's processes have one."""
    kafka = config.kafka
    assert kafka is not None, "the configuration is validated"
    name = kafka.instance or (os.environ.get("HOSTNAME") if "KUBERNETES_SERVICE_HOST" in os.environ else None)
    if workers == 1 or name is None:
        return config
    return config.model_copy(update={"kafka": kafka.model_copy(update={"instance": f"{name}-{index}"})})
