"""The operator's `/livez`, `/readyz` and `/metrics`. Owns no state: the reconciler tells when it last looked."""

from __future__ import annotations

import time

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from postrail_operator.reconcile import Reconciler

STUCK_SECONDS = 300.0
"""Without a look for so long the process is ended and started again."""


def application(reconciler: Reconciler) -> web.Application:
    """Serves the three paths."""
    started = time.monotonic()

    async def livez(_: web.Request) -> web.Response:
        since = time.monotonic() - (reconciler.looked_at or started)
        if since > STUCK_SECONDS:
            return web.Response(status=503, text=f"nothing was looked at for {since:.0f} s; the log says why\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if reconciler.looked_at is None:
            return web.Response(status=503, text="the objects were not looked at yet; the log says why\n")
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    found = web.Application()
    found.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return found
