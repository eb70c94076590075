"""What the API server itself says to the chart's objects, for each of the ways to install it, and Helm to wrong values.

The kinds of other operators (Strimzi, cert-manager, Prometheus's) get a definition without a schema where the cluster does not
know them: their fields are then not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster_release import CHART, ROOT, Release, resource
from tests.support.kubectl import CommandFailed, Kubectl, helm, run

VALUE_SETS = sorted((ROOT / "tests" / "golden" / "chart").glob("*.yaml"))
OTHERS = {
    ("monitoring.coreos.com", "v1"): ("PodMonitor", "PrometheusRule"),
    ("cert-manager.io", "v1"): ("Certificate",),
    ("kafka.strimzi.io", "v1beta2"): ("Kafka", "KafkaNodePool", "KafkaUser"),
}


@pytest.fixture(scope="module")
def other_kinds(release: Release) -> Iterator[None]:
    """The kinds of other operators, unless the cluster has them."""
    made = []
    for (group, version), kinds in OTHERS.items():
        for kind in kinds:
            name = f"{kind.lower()}s.{group}"
            if release.kubectl.get("customresourcedefinition", name) is None:
                release.kubectl.apply(definition(group, version, kind))
                made.append(name)
    for name in made:
        release.kubectl("wait", "--for=condition=Established", f"customresourcedefinition/{name}", "--timeout=30s")
    yield
    for name in made:
        release.kubectl.delete("customresourcedefinition", name)


def definition(group: str, version: str, kind: str) -> dict[str, Any]:
    """A kind of which any content will do."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": group,
        "names": {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()},
        "scope": "Namespaced",
        "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
    }
    return resource(
        "CustomResourceDefinition", f"{kind.lower()}s.{group}", version="apiextensions.k8s.io/v1", spec=spec
    )


@pytest.fixture(scope="module")
def namespaces(release: Release) -> Iterator[str]:
    """A namespace in which nothing is, and one beside it for senders."""
    name = f"{release.place.namespace}-values"
    kubectl = Kubectl(name)
    kubectl.apply(resource("Namespace", name, labels={"pod-security.kubernetes.io/enforce": "restricted"}))
    kubectl.apply(resource("Namespace", f"{name}-senders"))
    yield name
    release.kubectl("delete", "namespace", name, f"{name}-senders", "--ignore-not-found", "--wait=false")


@pytest.mark.parametrize("values", VALUE_SETS, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object(values: Path, namespaces: str, other_kinds: None) -> None:
    options: list[str | Path] = ["--values", values]
    given = yaml.safe_load(values.read_text(encoding="utf-8"))
    if given.get("senders", {}).get("hostNetwork", {}).get("namespace"):
        options += ["--set", f"senders.hostNetwork.namespace={namespaces}-senders"]
    apis = [f"--api-versions={group}/{version}/{kind}" for (group, version), kinds in OTHERS.items() for kind in kinds]
    kubectl = Kubectl(namespaces)
    version = json.loads(kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"]
    options += ["--namespace", namespaces, "--kube-version", version]
    rendered = helm("template", "postrail", CHART, *apis, *options)
    told = run(["kubectl", "apply", "--dry-run=server", "--filename", "-"], rendered)
    assert len(told.splitlines()) == sum(bool(one) for one in yaml.safe_load_all(rendered))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ingress.replicas=two", "ingress"),
        ("kafka.partitions=0", "partitions"),
        ("ingres.replicas=2", "ingres"),
        ("hostname=", "hostname is empty: set it to the name"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(release: Release, wrong: str, said: str) -> None:
    values = ROOT / "tests" / "golden" / "chart" / "evaluation.yaml"
    with pytest.raises(CommandFailed, match=said):
        helm("install", "wrong", CHART, "--namespace", release.place.namespace, "--values", values, "--set", wrong)
    assert "wrong" not in helm("list", "--all", "--short", "--namespace", release.place.namespace).split()
