"""The manifests that the operator owns: senders' Deployments, PodDisruptionBudgets, ScaledObjects, Secrets, egress policies.

Pure. What pods are like (image, volumes, probes, security) is the chart's: its template is filled in here. All carry the label
`postrail.io/made-by: operator`, by which they are found again. Neighbours: `compose` (what is in the Secrets), `plan` (what is
done about the difference).
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from postrail.core import kinds
from postrail.core.kind_specs import IPPoolSpec, SenderPoolSpec
from postrail_operator.compose import PROXY_DIRECTORY, Composition, by_gateway
from postrail_operator.objects import Item, Manifest, Objects
from postrail_operator.scaling import query
from postrail_operator.senders import OTHERS, Cluster, Senders, egress_label, host_ports, most_of, senders
from postrail_operator.settings import Settings

MADE_BY = "postrail.io/made-by"
OPERATOR = "operator"
POOL = "postrail.io/pool"
GROUP = "postrail.io/group"
NAMESPACE = "postrail.io/namespace"
"""Label of what has no namespace itself: that of the release, as another one may have the same name."""
CONFIG = "postrail.io/config"
"""Annotation of pods: the digest of what they have read; another one rolls them."""
APPLIED = "postrail.io/applied"
"""Annotation of what the operator makes: the digest of what it said last, so that a field taken back is noticed, too."""
CONFIG_FILE = "postrail.yaml"
KEDA_API = "keda.sh/v1alpha1"
CILIUM_API = "cilium.io/v2"
EGRESS_POLICY = "CiliumEgressGatewayPolicy"
EGRESS = "postrail.io/egress-address"
"""Label of pods behind an egress gateway: the address to which the network translates what they send."""
NOT_FOR_SENDERS = ("submitters", "signing")
"""Sections that only ingress and signing read, so that others are not rolled for them."""


def digest(*parts: object) -> str:
    """A digest of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def config_digest(config: Mapping[str, Any], component: str, files: Mapping[str, bytes]) -> str:
    """What the pods of a component must be rolled for.

    DKIM keys are read again by themselves, password hashes are not. Only routing goes by the weights of addresses, so that a
    quarantine rolls nothing else.
    """
    if component != "routing":
        config = _without_weights(config)
    if component not in {"ingress", "signing"}:
        return digest({name: section for name, section in config.items() if name not in NOT_FOR_SENDERS})
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name.endswith(".hash")}
    return digest(config, hashes)


def _without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    pools = {
        name: [{field: value for field, value in source.items() if field != "weight"} for source in pool["sources"]]
        for name, pool in config.get("pools", {}).items()
    }
    return {**config, "pools": pools}


def labels(settings: Settings, component: str) -> dict[str, str]:
    """The labels of everything that the operator makes."""
    return {
        "app.kubernetes.io/name": "postrail",
        "app.kubernetes.io/instance": settings.release,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "postrail",
        MADE_BY: OPERATOR,
    }


def secret(settings: Settings, name: str, namespace: str, files: Mapping[str, bytes]) -> Manifest:
    """A Secret with these entries."""
    data = {key: base64.b64encode(value).decode("ascii") for key, value in sorted(files.items())}
    metadata = {"name": name, "namespace": namespace, "labels": labels(settings, "configuration")}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def config_file(config: Mapping[str, Any]) -> bytes:
    """The configuration as the services read it."""
    head = "# Written by the operator from the objects of this namespace; what is changed here is overwritten.\n"
    return (head + yaml.safe_dump(dict(config), sort_keys=True, allow_unicode=True)).encode()


def manifests(
    objects: Objects, made: Composition, settings: Settings, cluster: Cluster, template: Mapping[str, Any]
) -> list[Manifest]:
    """Everything that the objects ask for. Nothing where they make no valid configuration: then all stays as it is."""
    if made.config is None:
        return []
    found = senders(objects, made, settings, cluster)
    ports = host_ports(found)
    namespaces = [settings.namespace]
    if settings.direct_elsewhere and any(one.direct for one in found):
        namespaces.append(settings.senders_namespace)
    files = {CONFIG_FILE: config_file(made.config)}
    result = [secret(settings, settings.config_secret, namespace, files) for namespace in namespaces]
    result.append(secret(settings, settings.keys_secret, settings.namespace, made.files))
    specs = {item.name: item for item in objects.sender_pools}
    ip_pools = {item.name: item.spec for item in objects.ip_pools}
    for one in found:
        item = specs[one.pool]
        assert item.spec is not None
        ip_pool = item.spec.ip_pool_ref.name, ip_pools.get(item.spec.ip_pool_ref.name)
        result.append(deployment(one, item.spec, ip_pool, made.config, settings, template, ports.get(one.name)))
        result.append(disruption_budget(one, settings))
    if cluster.keda:
        result += [
            scaled_object(item, settings, most_of(item.name, found))
            for item in objects.sender_pools
            if item.spec and item.spec.autoscaling
        ]
    if cluster.cilium:
        result += list(egress_policies(objects, made, settings))
    if len(namespaces) > 1:
        copies = cluster.template_secrets.items()
        result += [secret(settings, name, settings.senders_namespace, data) for name, data in sorted(copies)]
    return [stamped(manifest) for manifest in result]


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with the digest of what it says."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def template_secrets(template: Mapping[str, Any]) -> frozenset[str]:
    """The Secrets that the pods of a template mount, or take variables from."""
    pod = template["spec"]["template"]["spec"]
    mounted = {volume["secret"]["secretName"] for volume in pod.get("volumes", ()) if "secret" in volume}
    containers = (*pod.get("initContainers", ()), *pod["containers"])
    taken = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for container in containers
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    return frozenset(mounted | taken)


def deployment(
    one: Senders,
    spec: SenderPoolSpec,
    ip_pool: tuple[str, IPPoolSpec | None],
    config: Mapping[str, Any],
    settings: Settings,
    template: Mapping[str, Any],
    port: int | None,
) -> Manifest:
    """The Deployment of senders, made of the chart's template."""
    made: Manifest = copy.deepcopy(dict(template))
    selector = _selector(one, settings)
    metadata = made.setdefault("metadata", {})
    metadata |= {"name": one.name, "namespace": one.namespace}
    metadata["labels"] = {**metadata.get("labels", {}), **labels(settings, "sender"), **selector}
    made["spec"]["replicas"] = one.replicas
    made["spec"]["selector"] = {"matchLabels": selector}
    pod = made["spec"]["template"]
    about = pod.setdefault("metadata", {})
    about["labels"] = {**about.get("labels", {}), **selector}
    if one.egress:
        about["labels"] |= {EGRESS: egress_label(one.egress)}
    about["annotations"] = {**about.get("annotations", {}), CONFIG: config_digest(config, "sender", {})}
    container = pod["spec"]["containers"][0]
    arguments = ["--pool", one.pool, *(part for group in one.groups for part in ("--destination", group))]
    container["args"] = [*container.get("args", ()), *arguments]
    if spec.resources.requests or spec.resources.limits:
        container["resources"] = spec.resources.model_dump(exclude_defaults=True)
    for spread in pod["spec"].get("topologySpreadConstraints", ()):
        spread["labelSelector"] = {"matchLabels": selector}
    _place(pod, container, ip_pool, port)
    if port is not None:  # a node has the port once, so the old pod goes first
        strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"}
        made["spec"]["strategy"] = strategy
    return made


def _selector(one: Senders, settings: Settings) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "postrail",
        "app.kubernetes.io/instance": settings.release,
        "app.kubernetes.io/component": "sender",
        POOL: one.pool,
        GROUP: one.group or OTHERS,
    }


def _place(pod: Manifest, container: Manifest, ip_pool: tuple[str, IPPoolSpec | None], port: int | None) -> None:
    """Where the pods run, and how they reach the addresses."""
    name, spec = ip_pool
    if spec is None:
        return
    binding = spec.binding
    if binding.node_selector:
        pod["spec"]["nodeSelector"] = {**pod["spec"].get("nodeSelector", {}), **binding.node_selector}
    if binding.proxy_login is not None:
        ref = binding.proxy_login.password_secret_ref
        volume = {"secretName": ref.name, "defaultMode": 0o440, "items": [{"key": ref.key, "path": ref.key}]}
        pod["spec"].setdefault("volumes", []).append({"name": "proxy", "secret": volume})
        mount = {"name": "proxy", "mountPath": f"{PROXY_DIRECTORY}/{name}", "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)
    if port is not None:
        pod["spec"] |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
        container["args"] += ["--health-port", str(port)]
        for each in container.get("ports", ()):
            if each.get("name") == "health":
                each["containerPort"] = port
        annotations = pod["metadata"]["annotations"]
        if "prometheus.io/port" in annotations:
            annotations["prometheus.io/port"] = str(port)


def disruption_budget(one: Senders, settings: Settings) -> Manifest:
    """One sender of a Deployment is evicted at a time."""
    selector = _selector(one, settings)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": one.name,
            "namespace": one.namespace,
            "labels": {**labels(settings, "sender"), **selector},
        },
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }


def scaled_object(item: Item[SenderPoolSpec], settings: Settings, most: int) -> Manifest:
    """KEDA's object that scales a SenderPool, to `most` senders: more would be of no use.

    Where nobody knows how much mail waits, KEDA leaves the number as it is.
    """
    assert item.spec is not None
    assert item.spec.autoscaling is not None
    spec = item.spec.autoscaling
    behaviour = {
        "scaleUp": {"stabilizationWindowSeconds": round(spec.scale_up_stabilisation_seconds)},
        "scaleDown": {"stabilizationWindowSeconds": round(spec.scale_down_stabilisation_seconds)},
    }
    prometheus = {
        "serverAddress": settings.prometheus_url,
        "query": query(item.name, spec),
        "threshold": "1",
        "ignoreNullValues": "false",
    }
    bound = max(1, min(spec.max_replicas, most))
    return {
        "apiVersion": KEDA_API,
        "kind": "ScaledObject",
        "metadata": {
            "name": f"{settings.release}-{item.name}",
            "namespace": settings.namespace,
            "labels": {**labels(settings, "sender"), POOL: item.name},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": kinds.API_VERSION, "kind": kinds.SENDER_POOL.name, "name": item.name},
            "minReplicaCount": min(spec.min_replicas, bound),
            "maxReplicaCount": bound,
            "pollingInterval": 15,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behaviour}},
            "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": prometheus}],
        },
    }


def egress_policies(objects: Objects, made: Composition, settings: Settings) -> Iterable[Manifest]:
    """Cilium's policies for the addresses behind egress gateways: which pods leave from which address.

    An address that drains keeps its policy, so that pods that still have its label never leave from another one.
    """
    pools = {item.name: item.spec for item in objects.ip_pools if by_gateway(item)}
    for lease in made.leases:
        spec = pools.get(lease.ip_pool)
        if spec is None or spec.binding.gateway is None or not lease.sends:
            continue
        address = lease.address.address
        pods = {
            "app.kubernetes.io/name": "postrail",
            "app.kubernetes.io/instance": settings.release,
            "app.kubernetes.io/component": "sender",
            "io.kubernetes.pod.namespace": settings.namespace,
            POOL: lease.leased_to,
            EGRESS: egress_label(address),
        }
        nodes = {"matchLabels": dict(spec.binding.gateway.node_selector)}
        yield {
            "apiVersion": CILIUM_API,
            "kind": EGRESS_POLICY,
            "metadata": {
                "name": f"{settings.namespace}-{settings.release}-{egress_label(address)}",
                "labels": {**labels(settings, "sender"), POOL: lease.leased_to, NAMESPACE: settings.namespace},
            },
            "spec": {
                "selectors": [{"podSelector": {"matchLabels": pods}}],
                "destinationCIDRs": ["::/0" if ":" in address else "0.0.0.0/0"],
                "egressGateway": {"nodeSelector": nodes, "egressIP": address},
            },
        }
