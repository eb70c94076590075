"""The ingress service: its listeners, the sweep over the sessions' deadlines, and its drain.

Owns start and end. Several workers of a machine accept from the same sockets: `shared_listeners`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from postrail.core.ingress_config import ListenerConfig
from postrail.ingress.reception import Desk, Door, nobody_counts
from postrail.ingress.session import SubmissionSession
from postrail.ingress.shared_listeners import BACKLOG, Acceptor, SharedListeners, refused
from postrail.log.interface import LogError
from postrail.shell import logs
from postrail.shell.context import Context
from postrail.shell.tls_server import ServerCertificate

LOG = logs.logger("ingress")
_LOOK_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 1.0
_DRAIN_SECONDS: Final = 20.0
_LAST_WORDS_SECONDS: Final = 2.0


class IngressService:
    """Implements `shell.context.Service`.

    Args:
        shared: the sockets that this worker accepts from beside others; None: it binds its own.
    """

    name = "ingress"

    def __init__(self, context: Context, worker: int, shared: SharedListeners | None = None) -> None:
        self._context = context
        self._worker = worker
        self._shared = shared
        self._servers: list[asyncio.Server | Acceptor] = []
        self._desk: Desk | None = None
        self._certificate: ServerCertificate | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._problem: str | None = "not started"

    @property
    def ports(self) -> Sequence[int]:
        """The bound port of each listener, in the configuration's order."""
        return [server.sockets[0].getsockname()[1] for server in self._servers]

    async def start(self) -> None:
        """Bind all listeners.

        Raises:
            CertificateError: the certificate cannot be used.
            OSError: a port cannot be bound; the message names the listener.
        """
        loop = asyncio.get_running_loop()
        ingress = self._context.config.ingress
        if ingress.tls is not None:
            self._certificate = ServerCertificate(ingress.tls)
            self._certificate.start()
        self._desk = Desk(self._context, self._certificate, loop.time)
        if self._shared is not None:
            self._desk.on_sessions = self._shared.sessions_changed
            self._shared.sessions_changed(0)
        for index, listener in enumerate(ingress.listeners):
            self._servers.append(await self._listen(index, listener, Door(self._desk, listener), loop))
        self._sweeper = asyncio.create_task(self._sweep(self._desk))
        self._problem = None
        LOG.info("listening", worker=self._worker, ports=list(self.ports))

    async def _listen(
        self, index: int, listener: ListenerConfig, door: Door, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Server | Acceptor:
        def session() -> SubmissionSession:
            return SubmissionSession(door, loop)

        if self._shared is not None:
            return Acceptor(self._shared, self._shared.sockets[index], session, loop)
        try:
            return await loop.create_server(
                session, listener.address, listener.port, backlog=BACKLOG, reuse_address=True, reuse_port=True
            )
        except OSError as error:
            raise refused(index, listener, error) from error

    async def drain(self) -> None:
        """Listen no more, end idle sessions with 421, let those in content finish, then close the rest."""
        self._problem = "draining"
        if self._shared is not None and self._desk is not None:
            self._desk.on_sessions = nobody_counts
            self._shared.leave()
        for server in self._servers:
            server.close()
        desk = self._desk
        if desk is not None:
            desk.is_draining = True
            for session in list(desk.sessions):
                session.dismiss()
            await self._until_empty(desk, _DRAIN_SECONDS)
            for session in list(desk.sessions):
                session.end()
            await self._until_empty(desk, _LAST_WORDS_SECONDS)
            desk.credentials.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._certificate is not None:
            await self._certificate.stop()

    def problem(self) -> str | None:
        """Why mail cannot be submitted; None when it can."""
        if self._problem is None and self._sweeper is not None and self._sweeper.done():
            return "the watch over the sessions' deadlines has ended; restart the worker"
        return self._problem

    async def _until_empty(self, desk: Desk, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while desk.sessions and loop.time() < until:  # noqa: ASYNC110  # a poll at the end of a life needs no event
            await asyncio.sleep(0.02)

    async def _sweep(self, desk: Desk) -> None:
        """End what is past its deadline; look at how much waits."""
        loop = asyncio.get_running_loop()
        limits = desk.limits
        shortest = min(limits.command_timeout_seconds, limits.data_timeout_seconds, limits.message_timeout_seconds)
        look_at = 0.0
        pause = min(_SWEEP_SECONDS, shortest / 4)
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for session in list(desk.sessions):
                session.expire(now)
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                try:
                    desk.queue_records = await desk.acceptance.waiting()
                except LogError as error:
                    LOG.warning("backlog_unknown", reason=str(error), action="submission goes by the last figure")
