"""What the cluster has, gathered for one look: objects, Secrets, what the operator made, the chart's Deployments, figures.

Reads only. What of it is optional (nodes, KEDA, Prometheus) may be missing, and then counts as not known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from postrail.core.config import Config
from postrail.core.kinds import API_VERSION, KINDS
from postrail_operator.client import ApiError, Client, entries, path_of, selector
from postrail_operator.conditions import Seen, SenderState
from postrail_operator.objects import Manifest, Objects, read_objects, secrets_needed
from postrail_operator.plan import READS_CONFIG
from postrail_operator.prometheus import Measured, MetricsError, measure
from postrail_operator.render import CILIUM_API, EGRESS_POLICY, KEDA_API, MADE_BY, NAMESPACE, OPERATOR, template_secrets
from postrail_operator.senders import Cluster, Senders
from postrail_operator.settings import Settings

LOG = logging.getLogger("postrail.operator")
MARGIN_SECONDS = 120.0
"""How much longer than the longest deferral is looked back for waiting mail."""
_MADE = (("v1", "Secret"), ("apps/v1", "Deployment"), ("policy/v1", "PodDisruptionBudget"))


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the cluster."""

    bodies: Mapping[tuple[str, str], Manifest]
    """By kind and name, the objects as they came."""
    objects: Objects
    cluster: Cluster
    made: Sequence[Manifest]
    """What has the operator's label."""
    services: Sequence[Manifest]
    """The chart's Deployments that read the configuration."""
    measured: Measured | None = field(default=None)
    """None where nobody tells."""

    def drained(self, idle: frozenset[str]) -> frozenset[str]:
        """SenderPools without waiting mail, once all services run with what they were told last.

        Args:
            idle: those whose senders tell so themselves.
        """
        if not all(settled(manifest) for manifest in self.services):
            return frozenset()
        return idle if self.measured is None else idle | self.measured.idle()

    def seen(self, wanted: Sequence[Senders]) -> Seen:
        """What conditions are made of beside the objects."""
        senders: dict[str, list[SenderState]] = {}
        deployments = {
            (one["metadata"]["namespace"], one["metadata"]["name"]): one
            for one in self.made
            if one["kind"] == "Deployment"
        }
        for one in wanted:
            found = deployments.get((one.namespace, one.name), {})
            ready = int(found.get("status", {}).get("readyReplicas", 0))
            asked = int(found.get("spec", {}).get("replicas", one.replicas))
            senders.setdefault(one.pool, []).append(SenderState(one.name, one.group, asked, ready, one.most))
        if self.measured is None:
            return Seen(senders)
        loads = {item.name: self.measured.load(item.name) for item in self.objects.sender_pools}
        return Seen(senders, {name: load for name, load in loads.items() if load is not None}, self.measured.waited)


def settled(deployment: Mapping[str, Any]) -> bool:
    """Whether all pods of a Deployment are those of its present template."""
    status, replicas = deployment.get("status", {}), deployment.get("spec", {}).get("replicas", 1)
    current = status.get("observedGeneration") == deployment["metadata"].get("generation")
    return bool(current and status.get("updatedReplicas", 0) >= replicas and status.get("replicas", 0) <= replicas)


async def observe(
    client: Client, settings: Settings, template: Mapping[str, Any], base: Mapping[str, Any]
) -> Observation:
    """Look at everything.

    Raises:
        ApiError: the API server did not answer, or refused what is needed.
    """
    listed = await asyncio.gather(*(client.list_all(API_VERSION, kind.name, settings.namespace) for kind in KINDS))
    by_kind = {kind.name: bodies for kind, bodies in zip(KINDS, listed, strict=True)}
    objects = read_objects(by_kind, {})
    secrets = await _secrets(client, settings, secrets_needed(objects))
    objects = read_objects(by_kind, secrets)
    cluster = await _cluster(client, settings, template)
    namespaces = sorted({settings.namespace, settings.senders_namespace})
    label = selector({MADE_BY: OPERATOR, "app.kubernetes.io/instance": settings.release})
    queries = [client.list_all(version, kind, space, label) for version, kind in _MADE for space in namespaces]
    queries.append(
        client.list_all(KEDA_API, "ScaledObject", settings.namespace, label)
    )  # they are beside the SenderPools
    if cluster.cilium:
        ours = selector(
            {MADE_BY: OPERATOR, "app.kubernetes.io/instance": settings.release, NAMESPACE: settings.namespace}
        )
        queries.append(client.list_all(CILIUM_API, EGRESS_POLICY, selector=ours))
    made = [manifest for found in await asyncio.gather(*queries) for manifest in found]
    services = await client.list_all("apps/v1", "Deployment", settings.namespace, f"{READS_CONFIG}=true")
    measured = await _measured(settings, objects, base)
    bodies = {(kind, body["metadata"]["name"]): body for kind, found in by_kind.items() for body in found}
    return Observation(bodies, objects, cluster, made, services, measured)


async def _secrets(client: Client, settings: Settings, names: frozenset[str]) -> dict[str, dict[str, bytes]]:
    ordered = sorted(names)
    found = await asyncio.gather(*(client.get(path_of("v1", "Secret", settings.namespace, name)) for name in ordered))
    return {name: entries(secret) for name, secret in zip(ordered, found, strict=True) if secret is not None}


async def _cluster(client: Client, settings: Settings, template: Mapping[str, Any]) -> Cluster:
    nodes: list[dict[str, str]] | None = None
    try:
        nodes = [node["metadata"].get("labels", {}) for node in await client.list_all("v1", "Node")]
    except ApiError as error:
        LOG.info("nodes cannot be looked at, so replicas of direct pools are not bounded by them: %s", error)
    keda = settings.keda and bool(settings.prometheus_url) and await client.get(f"/apis/{KEDA_API}") is not None
    cilium = settings.cilium and await _takes_egress_policies(client)
    copies: dict[str, dict[str, bytes]] = {}
    if settings.direct_elsewhere:
        ours = {settings.config_secret, settings.keys_secret}
        copies = await _secrets(client, settings, template_secrets(template) - ours)
    return Cluster(nodes, copies, keda, cilium)


async def _takes_egress_policies(client: Client) -> bool:
    """Whether the cluster knows Cilium's egress gateway: its API is there without it, too."""
    found = await client.get(f"/apis/{CILIUM_API}") or {}
    return any(one.get("kind") == EGRESS_POLICY for one in found.get("resources", ()))


async def _measured(settings: Settings, objects: Objects, base: Mapping[str, Any]) -> Measured | None:
    if not settings.prometheus_url:
        return None
    tiers = base.get("delivery", {}).get("retry", {}).get("tiers_seconds")
    longest = Config.model_fields["delivery"].default.retry.tiers_seconds[-1] if tiers is None else float(tiers[-1])
    leaving = [item.name for item in objects.sender_pools if item.deleting]
    try:
        return await measure(settings.prometheus_url, longest + MARGIN_SECONDS, leaving)
    except MetricsError as error:
        LOG.warning("no figures of the senders: %s; look at POSTRAIL_PROMETHEUS_URL and at that Prometheus", error)
        return None
