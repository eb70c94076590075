"""What must be done: observed and desired manifests in, actions out. Pure and idempotent: planned again on its own result,
nothing is left to do.

A manifest agrees with the cluster when everything that it says stands there; what the cluster adds (defaults, status, other
owners' fields) does not count. Nothing is deleted that mail may still need. Neighbours: `render` (desired), `client` (acts).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from postrail_operator.objects import Manifest
from postrail_operator.render import CONFIG, POOL, config_digest

READS_CONFIG = "postrail.io/reads-config"
"""Label of the chart's Deployments that are rolled when the configuration changes."""
FIRST_CONFIG = "postrail.io/first-config"
"""Annotation of the configuration's Secret: `first_read`, as JSON."""
COMPONENT = "app.kubernetes.io/component"
_ORDER = ("Secret", "CiliumEgressGatewayPolicy", "PodDisruptionBudget", "Deployment", "ScaledObject")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}


class Ref(NamedTuple):
    """An object of the cluster; `namespace` is "" where its kind has none."""

    api_version: str
    kind: str
    namespace: str
    name: str


def ref_of(manifest: Mapping[str, Any]) -> Ref:
    """Which object a manifest is about."""
    metadata = manifest["metadata"]
    return Ref(manifest["apiVersion"], manifest["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class Apply:
    """Make the object say what the manifest says (server-side apply)."""

    manifest: Manifest
    why: str

    @property
    def ref(self) -> Ref:
        """The object."""
        return ref_of(self.manifest)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object."""

    ref: Ref


Action = Apply | Delete


def plan(
    desired: Sequence[Manifest], observed: Sequence[Manifest], keep_pools: frozenset[str] = frozenset()
) -> list[Action]:
    """What must be done so that the cluster has what is desired, in the order in which it is safe.

    Args:
        desired: everything that should exist.
        observed: everything with the operator's label that exists.
        keep_pools: SenderPools of which nothing is deleted, because their spec cannot be read, or mail may wait for them.
    """
    existing = {ref_of(manifest): manifest for manifest in observed}
    wanted = {ref_of(manifest): manifest for manifest in desired}
    actions: list[Action] = []
    for ref, manifest in sorted(wanted.items(), key=lambda item: _rank(item[0])):
        if ref not in existing:
            actions.append(Apply(manifest, "it does not exist"))
        elif place := difference(manifest, existing[ref]):
            actions.append(Apply(manifest, f"{place} differs"))
    for ref, manifest in sorted(existing.items(), key=lambda item: _rank(item[0]), reverse=True):
        pool = manifest["metadata"].get("labels", {}).get(POOL)
        if ref not in wanted and pool not in keep_pools:
            actions.append(Delete(ref))
    return actions


def _rank(ref: Ref) -> tuple[int, Ref]:
    """What others read comes first."""
    return (_ORDER.index(ref.kind) if ref.kind in _ORDER else len(_ORDER), ref)


def difference(desired: object, observed: object, path: str = "") -> str:
    """Where the cluster's object does not say what is desired; "" where it does.

    Lists must be as long; of mappings, what is desired must stand there. An empty or absent value is the same.
    """
    if isinstance(desired, Mapping):
        there = observed if isinstance(observed, Mapping) else {}
        for key, value in desired.items():
            if place := difference(value, there.get(key), f"{path}.{key}" if path else str(key)):
                return place
        return ""
    if isinstance(desired, list | tuple):
        items = observed if isinstance(observed, list | tuple) else ()
        if len(items) != len(desired):
            return path
        for index, (left, right) in enumerate(zip(desired, items, strict=True)):
            if place := difference(left, right, f"{path}[{index}]"):
                return place
        return ""
    return "" if _same(desired, observed) else path


def _same(desired: object, observed: object) -> bool:
    if desired == observed:
        return True
    if isinstance(desired, str) and isinstance(observed, str):
        left, right = quantity(desired), quantity(observed)
        return left is not None and left == right
    return desired in (None, "") and observed in (None, "")


def quantity(text: str) -> Decimal | None:
    """The value of a quantity of Kubernetes; None for what is none. The API server writes `1000m` as `1`."""
    match = _QUANTITY.fullmatch(text)
    return Decimal(match[1]) * _FACTORS[match[2] or ""] if match is not None else None


def first_read(
    existing: Manifest | None, config: Mapping[str, Any], files: Mapping[str, bytes], deployments: Sequence[Manifest]
) -> dict[str, str]:
    """What pods without the annotation CONFIG have read: the digest by component, of those for which it never changed.

    The chart's pods wait for the Secret, so all of them read what it holds first, and need not be rolled to read it again.

    Args:
        existing: the configuration's Secret; None: it is about to be made.
    """
    now = {component: config_digest(config, component, files) for component in map(_component, deployments)}
    if existing is None:
        return now
    try:
        before = json.loads(existing["metadata"].get("annotations", {}).get(FIRST_CONFIG, "{}"))
    except ValueError:
        return {}
    return {component: was for component, was in before.items() if now.get(component) == was}


def with_first_read(desired: Sequence[Manifest], secret: Ref, first: Mapping[str, str]) -> list[Manifest]:
    """The same manifests, and on the configuration's Secret what `first_read` says."""
    if not first:
        return list(desired)
    note = {FIRST_CONFIG: json.dumps(first, sort_keys=True)}
    return [_annotated(manifest, note) if ref_of(manifest) == secret else manifest for manifest in desired]


def _annotated(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}}


def _component(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("labels", {}).get(COMPONENT, ""))


def rollouts(
    config: Mapping[str, Any] | None,
    files: Mapping[str, bytes],
    deployments: Iterable[Manifest],
    first: Mapping[str, str],
) -> list[Apply]:
    """The annotation on the chart's Deployments that rolls their pods when what they read has changed.

    Args:
        config: None: what the services have stays.
        deployments: those with the label READS_CONFIG.
        first: as `first_read` gives.
    """
    if config is None:
        return []
    actions = []
    for manifest in deployments:
        ref, component = ref_of(manifest), _component(manifest)
        wanted = config_digest(config, component, files)
        patch = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": {"name": ref.name, "namespace": ref.namespace},
            "spec": {"template": {"metadata": {"annotations": {CONFIG: wanted}}}},
        }
        has = manifest["spec"]["template"].get("metadata", {}).get("annotations", {}).get(CONFIG)
        if has is None and first.get(component) == wanted:
            continue
        if place := difference(patch, manifest):
            actions.append(Apply(patch, f"{place} differs"))
    return actions
