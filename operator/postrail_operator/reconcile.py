"""One look at everything, and what follows from it: compose, plan, act, tell. And the loop that does it again and again.

Holds no decisions: they are in `compose`, `plan`, `scaling`, `conditions`. What it remembers between looks (what was wanted of
scaling, why objects may not go) is made anew after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from postrail.core import kinds
from postrail.core.conditions import ConditionType
from postrail_operator import metrics, peers
from postrail_operator.client import ApiError, Client
from postrail_operator.compose import Composition, compose
from postrail_operator.lookout import Lookout
from postrail_operator.objects import Item
from postrail_operator.observation import Observation, observe
from postrail_operator.plan import Action, Apply, Ref, first_read, plan, ref_of, rollouts, with_first_read
from postrail_operator.render import manifests
from postrail_operator.scaling import Stabiliser, wanted
from postrail_operator.senders import most_of, senders
from postrail_operator.settings import Settings
from postrail_operator.statuses import changed, events_of, status_of

LOG = logging.getLogger("postrail.operator")
INTERVAL_SECONDS = 15.0
GATHER_SECONDS = 0.5
"""How long after the first change others are waited for."""


@dataclass(slots=True)
class Reconciler:
    """Brings the cluster to what the objects say.

    Args:
        base: what the chart knows of the configuration.
        template: the chart's Deployment of senders.
    """

    client: Client
    settings: Settings
    base: Mapping[str, Any]
    template: Mapping[str, Any]
    identity: str
    priority: int
    releases: dict[tuple[str, str], str] = field(default_factory=dict)
    """By kind and name of objects that are being deleted, why they may not go; "" when they may."""
    looked_at: float | None = None
    """When everything was last looked at and all went well, in seconds of the steady clock."""
    lookout: Lookout | None = None
    """What looks at the DNS and asks the senders, beside the looks; None: the checks are switched off."""
    _stabilisers: dict[str, Stabiliser] = field(default_factory=dict)
    _poked: asyncio.Event = field(default_factory=asyncio.Event)

    def poke(self) -> None:
        """Something changed: look soon."""
        self._poked.set()

    async def run(self) -> None:
        """Look whenever something changed, and every few seconds. Ends only when cancelled."""
        while True:
            await self._once()
            try:
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._poked.wait()
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._poked.clear()

    async def _once(self) -> None:
        started = time.monotonic()
        try:
            acting = await self._acts()
            metrics.ACTING.set(acting)
            if acting:
                failed = await self.look(_now(), started)
                metrics.RECONCILES.labels("failed" if failed else "done").inc()
                metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
                metrics.LAST_RECONCILE.set_to_current_time()
            else:
                metrics.show(())
                if self.lookout is not None:
                    self.lookout.rest()
            self.looked_at = time.monotonic()
        except ApiError as error:
            metrics.RECONCILES.labels("failed").inc()
            LOG.warning("could not look at everything: %s; tried again in %g s", error, INTERVAL_SECONDS)
        except Exception:
            metrics.RECONCILES.labels("failed").inc()
            LOG.exception("unexpected error; tried again in %g s", INTERVAL_SECONDS)

    async def _acts(self) -> bool:
        ref = Ref("kopf.dev/v1", "KopfPeering", self.settings.namespace, self.settings.peering)
        return peers.acts(await self.client.read(ref), self.identity, self.priority, datetime.now(UTC))

    async def look(self, now: str, monotonic: float) -> int:
        """Look at everything once and act; how many changes failed.

        Args:
            now: RFC 3339, UTC.
            monotonic: seconds of the steady clock.

        Raises:
            ApiError: not even looking was possible.
        """
        seen = await observe(self.client, self.settings, self.template, self.base)
        idle = frozenset[str]() if self.lookout is None else self.lookout.idle()
        made = compose(self.base, seen.objects, seen.drained(idle), gateways=seen.cluster.cilium)
        if self.lookout is not None:
            self.lookout.follow(seen.objects, made)
        for note in made.notes:
            LOG.warning("%s", note)
        if made.problem:
            LOG.error("the objects make no valid configuration, so the services keep the last one: %s", made.problem)
        desired = manifests(seen.objects, made, self.settings, seen.cluster, self.template)
        actions: list[Action] = []
        if made.config is not None:
            config = Ref("v1", "Secret", self.settings.namespace, self.settings.config_secret)
            existing = next((manifest for manifest in seen.made if ref_of(manifest) == config), None)
            first = first_read(existing, made.config, made.files, seen.services)
            actions += plan(with_first_read(desired, config, first), seen.made, keep_pools(seen))
            actions += rollouts(made.config, made.files, seen.services, first)
        # Leases first: what is written there is what a restarted operator, or its peer, goes by.
        failed = await self._tell(seen, made, now)
        for action in actions:
            failed += await self._act(action)
        failed += await self._scale(seen, made, monotonic)
        return failed

    async def _act(self, action: Action) -> int:
        if isinstance(action, Apply):
            LOG.info("apply %s %s/%s: %s", action.ref.kind, action.ref.namespace, action.ref.name, action.why)
            return await _tried("apply", self.client.apply(action.manifest))
        LOG.info("delete %s %s/%s", action.ref.kind, action.ref.namespace, action.ref.name)
        return await _tried("delete", self.client.delete(action.ref))

    async def _tell(self, seen: Observation, made: Composition, now: str) -> int:
        """Write the statuses that differ, and events for what changed."""
        found = seen.seen(senders(seen.objects, made, self.settings, seen.cluster))
        found = replace(found, answers=None) if self.lookout is None else self.lookout.tell(found, seen.objects, made)
        statuses = [(item, status_of(item, seen.objects, made, found, now)) for item in seen.objects.every]
        metrics.show((item.kind.name, status) for item, status in statuses)
        self.releases = {
            item.key: reason for item, status in statuses if (reason := held_back(item, status)) is not None
        }
        failed = 0
        for item, status in statuses:
            if not changed(item, status):
                continue
            body = seen.bodies[item.key]
            metadata = {"name": item.name, "namespace": self.settings.namespace}
            manifest = {"apiVersion": kinds.API_VERSION, "kind": item.kind.name, "metadata": metadata, "status": status}
            failed += await _tried("status", self.client.apply(manifest, "status"))
            for told in events_of(item, status):
                failed += await _tried("event", self.client.tell(body, told, now))
        return failed

    async def _scale(self, seen: Observation, made: Composition, monotonic: float) -> int:
        """Change `spec.replicas` where the pool says so and nobody else does."""
        pools = {
            item.name: item for item in seen.objects.sender_pools if item.spec is not None and item.spec.autoscaling
        }
        self._stabilisers = {name: one for name, one in self._stabilisers.items() if name in pools}
        if seen.cluster.keda or seen.measured is None or made.model is None:
            return 0
        every = senders(seen.objects, made, self.settings, seen.cluster)
        failed = 0
        for name, item in pools.items():
            assert item.spec is not None
            spec, found = item.spec.autoscaling, seen.measured.figures.get(name, ())
            if spec is None or item.spec.suspend or item.spec.replicas == 0:
                continue  # a person stopped it
            stabiliser = self._stabilisers.get(name)
            if stabiliser is None or stabiliser.spec != spec:
                stabiliser = self._stabilisers[name] = Stabiliser(spec)
            want = wanted(found, spec, most_of(name, every)) if found else max(item.spec.replicas, spec.min_replicas)
            replicas = stabiliser.decide(item.spec.replicas, want, monotonic)
            if replicas != item.spec.replicas:
                LOG.info("scale SenderPool %s from %d to %d", name, item.spec.replicas, replicas)
                ref = Ref(kinds.API_VERSION, item.kind.name, self.settings.namespace, name)
                failed += await _tried("scale", self.client.scale(ref, replicas))
        return failed


def keep_pools(seen: Observation) -> frozenset[str]:
    """SenderPools of which nothing is deleted: their spec cannot be read, so nobody knows what they want."""
    return frozenset(item.name for item in seen.objects.sender_pools if item.spec is None)


def held_back(item: Item[Any], status: Mapping[str, Any]) -> str | None:
    """Why an object that is being deleted may not go yet; "" when it may, None for an object that stays."""
    if not item.deleting:
        return None
    conditions: Sequence[Mapping[str, Any]] = status["conditions"]
    (released,) = (one for one in conditions if one["type"] == ConditionType.RELEASED)
    return "" if released["status"] == "True" else f"{released['reason']}: {released['message']}"


async def _tried(verb: str, action: Awaitable[None]) -> int:
    """1 where it failed, which is logged and counted; the next look tries again."""
    try:
        await action
    except ApiError as error:
        metrics.ACTIONS.labels(verb, "failed").inc()
        LOG.warning("%s: %s; tried again in %g s", verb, error, INTERVAL_SECONDS)
        return 1
    metrics.ACTIONS.labels(verb, "done").inc()
    return 0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
