"""What every service is handed at its start, and what a service is to the process that runs it.

Owns no behaviour. The process (`postrail.cli.up`) builds one Context for each pipeline and starts the services on it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from postrail.core.config import Config
from postrail.log.interface import Log
from postrail.shell.blobs import BlobStore
from postrail.shell.dns import Resolver


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a pipeline's services.

    Attributes:
        config: the whole file.
        log: this pipeline's log.
        blobs: bodies too large for a record; shared by all pipelines of the machine.
        resolver: DNS, with its cache; shared by the pipelines of the process.
        shares: how many pipelines the machine runs; each takes this part of every rate limit.
        slots_directory: where connection slots are locked, machine-wide.
        clock: Unix time in seconds.
        jitter: a fraction in [0, 1).
    """

    config: Config
    log: Log
    blobs: BlobStore
    resolver: Resolver
    shares: int
    slots_directory: Path
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


class Service(Protocol):
    """A part of the pipeline that the process starts and drains."""

    name: str

    async def start(self) -> None:
        """Take up work and return; raises what prevents that, with a message for a person."""
        ...

    async def drain(self) -> None:
        """Start nothing new, finish or hand back what is under way, commit, release."""
        ...

    def problem(self) -> str | None:
        """Why the service is not ready or no longer makes progress; None when all is well."""
        ...
