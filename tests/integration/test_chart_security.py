"""What pods may do and reach is what docs/kubernetes/security.md and network.md say, rule by rule, in every way to install it.

The tables are read from the documents, so that neither can change alone. Each rule is taken apart to (pods, other side, port).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.chart import CHART, ROOT, VALUE_SETS, Manifest, every_value_set, fullname, rendered, sender_template

DOCS = ROOT / "docs" / "kubernetes"
COMPONENT = "app.kubernetes.io/component"
SELECTOR = {"app.kubernetes.io/name": "postrail", "app.kubernetes.io/instance": "postrail"}
EVERY = ("ingress", "signing", "routing", "scheduler", "sender", "operator", "kafka", "test")
Values = dict[str, Any]


class Rule(NamedTuple):
    """One thing that is admitted; `peer` is "" for anywhere."""

    pods: str
    way: str
    peer: str
    port: str


def table(page: str, heading: str) -> list[dict[str, str]]:
    """The first table under a heading, by its columns."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1]
    start = text[text.index("| ") :].splitlines()
    lines = list(takewhile(lambda line: line.startswith("|"), start))
    del lines[1]
    cells = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


def merged(defaults: Values, given: Values) -> Values:
    """As Helm puts values together."""
    result = dict(defaults)
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def by_name(name: str) -> Path:
    return next(path for path in VALUE_SETS if path.stem == name)


@cache
def values_of(path: Path) -> Values:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return merged(defaults, yaml.safe_load(path.read_text(encoding="utf-8")))


def at(values: Values, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


# what the document says


def told(path: Path) -> set[Rule]:
    """The rules of the tables for one set of values."""
    values, found = values_of(path), set()
    for way, heading, column in (("in", "In", "from"), ("out", "Out", "to")):
        for row in table("network.md", heading):
            if not holds(row["when"], values):
                continue
            for pods in words(row["pods"]):
                if pods == "kafka" and not values["kafka"]["evaluation"]["enabled"]:
                    continue
                if pods == "test" and not values["test"]["enabled"]:
                    continue
                for peer in peers(row[column], values, fullname(path)):
                    found |= {
                        Rule(pods, way, peer, port) for word in words(row["ports"]) for port in ports(word, values)
                    }
    return found


def words(cell: str) -> list[str]:
    return [word.strip().strip("`") for word in cell.split(",")]


def holds(when: str, values: Values) -> bool:
    kafka = values["kafka"]
    known = {
        "": True,
        "neither of these": not (kafka["evaluation"]["enabled"] or kafka["strimzi"]["enabled"]),
        "`blobs.store` is s3": values["blobs"]["store"] == "s3",
    }
    if when in known:
        return bool(known[when])
    return all(bool(at(values, part.strip("`"))) for part in when.split(" and "))


def peers(cell: str, values: Values, name: str) -> Iterator[str]:
    if cell.startswith("`"):
        given = at(values, cell.strip("`"))
        yield from (text(peer) for peer in given) if given else ("",)
    elif cell.startswith("pods of Strimzi"):
        labels = {"strimzi.io/cluster": name, "strimzi.io/kind": "Kafka"}
        yield text({"podSelector": {"matchLabels": labels}})
    elif cell.startswith("pods "):
        yield from words(cell.removeprefix("pods "))
    elif cell == "anywhere":
        yield ""
    else:
        yield text({"ipBlock": {"cidr": cell}})


def ports(word: str, values: Values) -> Iterator[str]:
    if re.fullmatch(r"health|[0-9-]+( TCP| UDP)?", word):
        yield word.removesuffix(" TCP")
        return
    given = at(values, word)
    if word in {"ingress.listeners", "egress.addresses"}:
        yield from (str(one["port"]) for one in given)
    elif word == "kafka.bootstrapServers":
        yield from (server.rpartition(":")[2] for server in given)
    elif word in {"blobs.s3.endpoint", "operator.prometheusUrl"}:
        parts = urlsplit(given or "https://")
        yield str(parts.port or {"http": 80, "https": 443}[parts.scheme])
    else:
        yield from map(str, given if isinstance(given, list) else [given])


def text(peer: Any) -> str:
    return json.dumps(peer, sort_keys=True)


# what the chart renders


def admitted(path: Path) -> set[Rule]:
    """The rules of the policies for one set of values."""
    found = set()
    for policy in (one["spec"] for one in rendered(path) if one["kind"] == "NetworkPolicy"):
        for pods in selected(policy["podSelector"], path):
            for way, key, side in (("in", "ingress", "from"), ("out", "egress", "to")):
                if policy.get(key):
                    assert key.capitalize() in policy["policyTypes"]
                for rule in policy.get(key, ()):
                    for peer in shown(rule.get(side), path):
                        found |= {Rule(pods, way, peer, port_text(port)) for port in rule["ports"]}
    return found


def selected(selector: Manifest, path: Path) -> list[str]:
    """The pods of the release that a selector finds."""
    labels = dict(selector.get("matchLabels", {}))
    assert labels.items() >= SELECTOR.items(), "a policy is about pods of this release only"
    wanted = labels.get(COMPONENT)
    found = [one for one in EVERY if wanted in {None, one}]
    for expression in selector.get("matchExpressions", ()):
        assert expression["key"] == COMPONENT
        inside = expression["operator"] == "In"
        assert inside or expression["operator"] == "NotIn"
        found = [one for one in found if (one in expression["values"]) is inside]
    absent = set() if values_of(path)["kafka"]["evaluation"]["enabled"] else {"kafka"}
    absent |= set() if values_of(path)["test"]["enabled"] else {"test"}
    return [one for one in found if one not in absent]


def shown(given: list[Manifest] | None, path: Path) -> Iterator[str]:
    for peer in given or [{}]:
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        if set(peer) == {"podSelector"} and labels.items() >= SELECTOR.items():
            yield from selected(peer["podSelector"], path)
        else:
            yield text(peer) if peer else ""


def port_text(port: Manifest) -> str:
    number = f"{port['port']}-{port['endPort']}" if "endPort" in port else str(port["port"])
    return number + (" UDP" if port.get("protocol") == "UDP" else "")


@every_value_set
def test_policies_admit_what_the_table_says_and_no_more(values: Path) -> None:
    expected, found = told(values), admitted(values)
    assert sorted(found - expected) == [], "the chart admits what the table does not say"
    assert sorted(expected - found) == [], "the table says what the chart does not admit"
    assert len(found) > 20


def test_an_evaluation_broker_admits_senders_on_the_nodes_network(tmp_path: Path) -> None:
    """No set of values has both; the tables do."""
    both = merged(
        yaml.safe_load(by_name("evaluation").read_text()), yaml.safe_load(by_name("host-network").read_text())
    )
    both |= {"kafka": {"evaluation": {"enabled": True}}, "ingress": {"tls": {"secret": "mail-tls"}}}
    values = tmp_path / "both.yaml"
    values.write_text(yaml.safe_dump(both), encoding="utf-8")
    assert told(values) == admitted(values)
    assert Rule("kafka", "in", text({"ipBlock": {"cidr": "0.0.0.0/0"}}), "9092") in told(values)


def test_a_rule_too_many_or_too_few_would_be_found() -> None:
    rules = admitted(by_name("evaluation"))
    assert Rule("kafka", "in", "sender", "9092") in rules
    assert Rule("kafka", "in", "operator", "9092") not in rules
    assert Rule("test", "out", "ingress", "2587") in rules
    assert Rule("signing", "in", "ingress", "9464") not in rules


# the operator's rights

Right = tuple[str, str, str, str]
"""Where, on what, what, and on those of which names only ("": all)."""


def rights_told(path: Path) -> set[Right]:
    found = set()
    for row in table("network.md", "What the operator may do"):
        if holds(row["when"], values_of(path)):
            for where in words(row["where"]):
                for resource in words(row["what"]):
                    found |= {
                        (where, resource, verb, only) for verb in words(row["rights"]) for only in words(row["only"])
                    }
    return found


def rights_given(path: Path) -> set[Right]:
    found = set()
    for role in (one for one in rendered(path) if one["kind"] in {"Role", "ClusterRole"}):
        assert role["metadata"]["labels"][COMPONENT] == "operator", "nobody else has rights"
        namespace = role["metadata"].get("namespace")
        where = {None: "cluster", "mail": "release", "mail-senders": "senders"}[namespace]
        for rule in role["rules"]:
            names = {name_told(name, rule["resources"]) for name in rule.get("resourceNames", ("",))}
            found |= {
                (where, what, verb, name) for what in rule["resources"] for verb in rule["verbs"] for name in names
            }
    return found


def name_told(name: str, resources: list[str]) -> str:
    if resources == ["kopfpeerings"] and name:
        return "its own"
    return kind_of_secret(name) if name else ""


@every_value_set
def test_the_operators_rights_are_those_of_the_table(values: Path) -> None:
    expected, found = rights_told(values), rights_given(values)
    both = {(where, only) for where, _, _, only in found}
    expected = {one for one in expected if one[0] != "senders" or ("senders", "config") in both}
    expected = {one for one in expected if one[3] not in {"Kafka", "S3"} or ("senders", one[3]) in both}
    assert sorted(found - expected) == [], "the chart gives what the table does not say"
    assert sorted(expected - found) == [], "the table says what the chart does not give"


# pods


def pod_specs(path: Path) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Component, pod's spec, and the object that it is made by."""
    manifests = rendered(path)
    for made in (*manifests, sender_template(manifests, fullname(path))):
        template = made if made["kind"] == "Pod" else made.get("spec", {}).get("template", {})
        if made["kind"] in {"Pod", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}:
            yield template["metadata"]["labels"][COMPONENT], template["spec"], made


def test_pods_are_those_of_the_table_and_write_and_read_what_it_says() -> None:
    writes: dict[str, set[str]] = {}
    secrets: dict[str, set[str]] = {}
    token: dict[str, bool] = {}
    host: dict[str, bool] = {}
    for path in VALUE_SETS:
        for name, spec, made in pod_specs(path):
            token[name] = spec.get("automountServiceAccountToken", True)
            host[name] = spec.get("hostNetwork", False)
            assert not any("hostPath" in volume for volume in spec["volumes"])
            for container in (*spec.get("initContainers", ()), *spec["containers"]):
                mounts = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
                writes.setdefault(name, set()).update(mount["mountPath"] for mount in mounts)
            named = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
            secrets.setdefault(name, set()).update(kind_of_secret(one) for one in named)
            assert made["metadata"].get("namespace", "mail") == ("mail-senders" if host[name] else "mail")
    rows = table("security.md", "Each pod")
    assert {row["pod"] for row in rows} == set(writes)
    for row in rows:
        name = row["pod"]
        assert set(words(row["writes to"])) == writes[name], name
        assert {word for word in words(row["Secrets"]) if word} == secrets[name], name
        assert row["token of the API"] == ("yes" if token[name] else "no"), name
        assert row["network"].startswith("the node's" if host[name] else "own"), name


def kind_of_secret(name: str) -> str:
    for end in ("config", "keys", "tls"):
        if name.endswith(f"-{end}"):
            return end
    return "S3" if name.startswith("s3") else "Kafka"


@every_value_set
def test_every_container_is_restricted(values: Path) -> None:
    seen = 0
    for name, spec, _made in pod_specs(values):
        pod = spec["securityContext"]
        assert not {"hostPID", "hostIPC"} & set(spec), name
        for container in (*spec.get("initContainers", ()), *spec["containers"], *spec.get("ephemeralContainers", ())):
            own = container["securityContext"]
            where = f"{name}/{container['name']}"
            assert own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True, where
            assert own.get("runAsUser", pod.get("runAsUser")) > 0, where
            assert own["readOnlyRootFilesystem"] is True, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert own.get("seccompProfile", pod.get("seccompProfile")) == {"type": "RuntimeDefault"}, where
            assert own["allowPrivilegeEscalation"] is False, where
            assert "privileged" not in own, where
            assert container["resources"]["limits"]["memory"], where
            assert not any("hostPort" in port for port in container.get("ports", ()) if not spec.get("hostNetwork")), (
                where
            )
            seen += 1
    assert seen >= 10


@pytest.mark.parametrize("name", ["host-network", "everything"])
def test_only_the_senders_namespace_is_outside_the_restricted_standard(name: str) -> None:
    manifests = rendered(by_name(name))
    [namespace] = [one for one in manifests if one["kind"] == "Namespace"]
    labels = namespace["metadata"]["labels"]
    assert namespace["metadata"]["name"] == "mail-senders"
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert labels["pod-security.kubernetes.io/audit"] == "baseline"
