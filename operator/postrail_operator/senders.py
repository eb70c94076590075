"""Which Deployments of senders the objects ask for, and how many pods of each could be of use. Pure.

A SenderPool has one Deployment for each destination group that it names, and one for all others. Neighbours: `scaling` (the most
that is of use), `render` (the manifests), `statuses` (shows them).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from zlib import crc32

from postrail.core.kind_specs import BindingMode, IPPoolSpec, SenderPoolSpec
from postrail_operator.compose import Composition, by_gateway
from postrail_operator.leases import State, of_sender_pool
from postrail_operator.objects import Item, Objects
from postrail_operator.scaling import useful
from postrail_operator.settings import Settings

OTHERS = "others"
"""In the label of senders that serve all groups without senders of their own."""
HOST_PORTS = range(21000, 22000)
"""From which senders on the host network take their health ports: several may be on one node."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the cluster has, as far as manifests depend on it."""

    nodes: Sequence[Mapping[str, str]] | None = None
    """The labels of each node; None where the operator may not look."""
    template_secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """The Secrets that the senders' pods mount beside the configuration, by name."""
    keda: bool = False
    cilium: bool = False


def groups_of(spec: SenderPoolSpec, made: Composition) -> list[tuple[str, tuple[str, ...]]]:
    """The Deployments of a pool: the group that names each ("" for all others), and the groups that it serves."""
    assert made.model is not None
    every = made.model.routing.groups
    own = [group for group in spec.destinations if group in every]
    rest = tuple(group for group in every if group not in own)
    return [(group, (group,)) for group in own] + ([("", rest)] if rest else [])


@dataclass(frozen=True, slots=True)
class Senders:
    """One Deployment to be made."""

    pool: str
    group: str
    groups: tuple[str, ...]
    name: str
    namespace: str
    most: int
    replicas: int
    direct: bool
    egress: str = ""
    """The address to which the network translates what its pods send; "": it does not."""


def senders(objects: Objects, made: Composition, settings: Settings, cluster: Cluster) -> list[Senders]:
    """Every Deployment of senders that the objects ask for."""
    if made.model is None:
        return []
    ip_pools = {item.name: item.spec for item in objects.ip_pools if item.spec is not None}
    gateways = {item.name for item in objects.ip_pools if by_gateway(item)}
    found = []
    for item in objects.sender_pools:
        if item.spec is None:
            continue
        ip_pool = ip_pools.get(item.spec.ip_pool_ref.name)
        direct = ip_pool is not None and ip_pool.binding.mode is BindingMode.DIRECT
        nodes = _nodes(ip_pool, cluster) if direct else None
        egress = _egress(item, gateways, made)
        for group, groups in groups_of(item.spec, made):
            most = useful(made.model, item.name, groups, nodes)
            replicas = 0 if item.spec.suspend else min(item.spec.replicas, most)
            name = f"{settings.release}-sender-{item.name}-{group or OTHERS}"
            namespace = settings.senders_namespace if direct else settings.namespace
            found.append(Senders(item.name, group, groups, name, namespace, most, replicas, direct, egress))
    return found


def most_of(pool: str, found: Iterable[Senders]) -> int:
    """The most senders of which a pool has use: as many as its largest Deployment."""
    return max((one.most for one in found if one.pool == pool), default=0)


def _egress(item: Item[SenderPoolSpec], gateways: Container[str], made: Composition) -> str:
    """The address of a pool behind a gateway: the one that does not drain."""
    found = (lease for lease in of_sender_pool(made.leases, item.name) if lease.ip_pool in gateways)
    return next((lease.address.address for lease in found if lease.state is not State.DRAINING), "")


def egress_label(address: str) -> str:
    """An IP address as the value of a label."""
    return ip_address(address).exploded.replace(":", "-")


def _nodes(ip_pool: IPPoolSpec | None, cluster: Cluster) -> int | None:
    """How many nodes have the labels that a pool asks for; None where nobody can tell."""
    if cluster.nodes is None or ip_pool is None:
        return None
    selector = ip_pool.binding.node_selector
    return sum(selector.items() <= node.items() for node in cluster.nodes)


def host_ports(found: Iterable[Senders]) -> dict[str, int]:
    """A health port for each Deployment on the host network, none twice, the same each time as far as possible."""
    ports: dict[str, int] = {}
    for one in sorted((one for one in found if one.direct), key=lambda one: one.name):
        start = crc32(f"{one.namespace}/{one.name}".encode()) % len(HOST_PORTS)  # other releases share the nodes
        used = set(ports.values())
        turned = (*HOST_PORTS[start:], *HOST_PORTS[:start])
        ports[one.name] = next(port for port in turned if port not in used)
    return ports
