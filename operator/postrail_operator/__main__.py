"""`postrail-operator`: runs the operator until SIGTERM. Exit status 0 after a stop, 78 where its settings or files are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
from pathlib import Path
from typing import Any, cast

import kopf
import yaml
from aiohttp import web

from postrail_operator import handlers
from postrail_operator.client import Client
from postrail_operator.health import application
from postrail_operator.lookout import lookout
from postrail_operator.peers import HIGHEST_PRIORITY
from postrail_operator.reconcile import Reconciler
from postrail_operator.settings import Settings, SettingsError, read_settings

EXIT_CONFIGURATION = 78
TEMPLATE_FILE = "sender.yaml"


def main() -> int:
    """Run it; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = read_settings(os.environ)
        base = read_mapping(Path(settings.base_file))
        template = read_mapping(Path(settings.templates_directory) / TEMPLATE_FILE)
        asyncio.run(serve(settings, base, template))
    except SettingsError as error:
        print(f"postrail-operator: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    return 0


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file with a mapping.

    Raises:
        SettingsError: there is none, or it is something else.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}; the chart mounts it from a ConfigMap") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds no mapping; the chart mounts it from a ConfigMap")
    return data


async def serve(settings: Settings, base: dict[str, Any], template: dict[str, Any]) -> None:
    """Watch and act until a signal."""
    identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{random.randrange(16**8):08x}"
    priority = random.randint(1, HIGHEST_PRIORITY)
    async with Client() as client:
        reconciler = Reconciler(client, settings, base, template, identity, priority)
        if settings.checks:
            reconciler.lookout = lookout(settings, base, client, reconciler.poke)
        registry, of_kopf = kopf.OperatorRegistry(), kopf.OperatorSettings()
        handlers.register(registry, reconciler)
        handlers.configure(of_kopf, settings.peering, priority)
        runner = web.AppRunner(application(reconciler), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=settings.port).start()
        loops = [asyncio.create_task(reconciler.run(), name="reconciler")]
        if reconciler.lookout is not None:
            loops.append(asyncio.create_task(reconciler.lookout.run(), name="lookout"))
        try:
            await kopf.operator(
                registry=registry,
                settings=of_kopf,
                identity=cast("Any", identity),  # kopf's own type of it is not public
                namespaces=[settings.namespace],
            )
        finally:
            for loop in loops:
                loop.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await loop
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
