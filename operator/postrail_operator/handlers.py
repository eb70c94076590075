"""What kopf calls: watches the five kinds and what belongs to them, holds back deletions, and keeps the peering alive.

Every change only pokes the `Reconciler`, which looks at everything. A deletion waits in kopf's finalizer until the reconciler
says that nothing needs the object any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import kopf

from postrail.core.kinds import GROUP, IP_POOL, KINDS, SENDER_POOL, VERSION
from postrail_operator.client import login
from postrail_operator.plan import READS_CONFIG
from postrail_operator.reconcile import Reconciler
from postrail_operator.render import MADE_BY, OPERATOR

FINALIZER = "postrail.io/in-use"
LOOK_AGAIN_SECONDS = 5.0
PREFIX = "postrail.io"
"""Of the annotations in which kopf remembers what it has handled."""


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler) -> None:
    """Tell kopf what to watch."""

    def poke(**_: Any) -> None:
        reconciler.poke()

    def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    kopf.on.login(registry=registry)(sign_in)
    for kind in KINDS:
        kopf.on.event(GROUP, VERSION, kind.plural, registry=registry)(poke)
    for kind in (IP_POOL, SENDER_POOL):
        kopf.on.delete(GROUP, VERSION, kind.plural, registry=registry)(hold_back(kind.name, reconciler))
    kopf.on.event("", "v1", "secrets", registry=registry)(poke)
    kopf.on.event("apps", "v1", "deployments", labels={MADE_BY: OPERATOR}, registry=registry)(poke)
    kopf.on.event("apps", "v1", "deployments", labels={READS_CONFIG: "true"}, registry=registry)(poke)


def hold_back(kind: str, reconciler: Reconciler) -> Callable[..., None]:
    """A handler of deletions that waits until the object may go."""

    def handler(name: str | None, **_: Any) -> None:
        why = reconciler.releases.get((kind, name or ""))
        reconciler.poke()
        if why is None:
            raise kopf.TemporaryError("whether anything needs it is being looked at", delay=1.0)
        if why:
            raise kopf.TemporaryError(why, delay=LOOK_AGAIN_SECONDS)

    handler.__name__ = f"release_{kind.lower()}"
    return handler


def configure(settings: kopf.OperatorSettings, peering: str, priority: int) -> None:
    """kopf's settings: whole watching of known kinds only, our own names, events by the reconciler."""
    settings.scanning.disabled = True
    settings.posting.level = logging.CRITICAL
    settings.peering.name = peering
    settings.peering.priority = priority
    settings.peering.mandatory = False
    settings.peering.lifetime = 30
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=PREFIX)
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.networking.request_timeout = 30
