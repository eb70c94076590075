"""The Helm chart: it renders for what people have, its pods are restricted, and wrong values are refused in words.

`tests/golden/chart` has a file for each way to install it. The cluster itself is for the end-to-end tests.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.core.config import Config
from tests.support.chart import (
    CHART,
    ROOT,
    SERVICES,
    VALUE_SETS,
    base,
    every_value_set,
    fullname,
    helm,
    named,
    only,
    pods,
    rendered,
    sender_template,
)


def complete(content: dict[str, Any]) -> Config:
    """The base configuration with what the operator adds."""
    pool = {"sources": [{"address": "192.0.2.1", "ehlo": "out.example.com"}]}
    submitter = {"name": "relay", "domains": ["*"]}
    return Config.model_validate({**content, "pools": {"default": pool}, "submitters": [submitter]})


def test_there_are_ten_ways_to_install() -> None:
    assert len(VALUE_SETS) == 10


@every_value_set
def test_lint_finds_nothing(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "-f", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@every_value_set
def test_the_base_configuration_is_one(values: Path) -> None:
    config = complete(base(rendered(values), fullname(values)))
    assert config.hostname == "mail.example.com"
    assert config.log.kind == "kafka"
    assert config.health.address == "0.0.0.0"


@every_value_set
def test_pods_keep_to_the_restricted_standard(values: Path) -> None:
    seen = 0
    for name, spec in pods(values):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec.get("hostNetwork", False) is (name == "DaemonSet postrail-egress"), name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]} | {"data"}, name
            assert "tmp" in mounted, name
            seen += 1
    assert seen >= len(SERVICES) + 3


@every_value_set
def test_only_the_operator_has_a_token(values: Path) -> None:
    with_token = {name for name, spec in pods(values) if spec.get("automountServiceAccountToken", True)}
    assert with_token == {f"Deployment {fullname(values)}-operator"}


@every_value_set
def test_services_are_probed_spread_and_given_time(values: Path) -> None:
    manifests = rendered(values)
    prefix = fullname(values)
    drain = complete(base(manifests, prefix)).delivery.drain_seconds
    for service in sorted(SERVICES):
        deployment = only(manifests, "Deployment", f"{prefix}-{service}")
        assert deployment["metadata"]["labels"]["postrail.io/reads-config"] == "true"
        spec = deployment["spec"]["template"]["spec"]
        container = spec["containers"][0]
        assert container["args"][0] == service
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
        assert spec["terminationGracePeriodSeconds"] > drain + 30
        assert {rule["topologyKey"] for rule in spec["topologySpreadConstraints"]} >= {"kubernetes.io/hostname"}
        budget = only(manifests, "PodDisruptionBudget", f"{prefix}-{service}")
        assert (
            budget["spec"]["selector"]["matchLabels"].items()
            <= deployment["spec"]["template"]["metadata"]["labels"].items()
        )


@every_value_set
def test_selectors_find_their_pods_and_ports_their_names(values: Path) -> None:
    for manifest in rendered(values):
        if manifest["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            template = manifest["spec"]["template"]
            assert manifest["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    manifests = rendered(values)
    ports = only(manifests, "Deployment", f"{fullname(values)}-ingress")["spec"]["template"]["spec"]["containers"][0][
        "ports"
    ]
    service = only(manifests, "Service", f"{fullname(values)}-ingress")
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= {port["name"] for port in ports}
    listened = {listener["port"] for listener in base(manifests, fullname(values))["ingress"]["listeners"]}
    assert listened == {port["containerPort"] for port in ports if port["name"] != "health"}


def test_the_configuration_says_where_the_mounted_secrets_are() -> None:
    manifests = named("existing-kafka-tls-sasl")
    kafka = complete(base(manifests)).log.kafka
    assert kafka is not None
    assert kafka.sasl is not None
    spec = sender_template(manifests, "postrail")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume.get("secret", {}) for volume in spec["volumes"]}
    files = {
        f"{mount['mountPath']}/{item['path']}": volumes[mount["name"]]["secretName"]
        for mount in spec["containers"][0]["volumeMounts"]
        for item in volumes[mount["name"]].get("items", ())
    }
    assert files[str(kafka.tls.ca_file)] == "kafka-ca"
    assert files[str(kafka.tls.certificate_file)] == "kafka-client"
    assert files[str(kafka.tls.key_file)] == "kafka-client"
    assert files[str(kafka.sasl.password_file)] == "kafka-password"
    assert kafka.topic_prefix == "mail."


def test_strimzi_gives_the_user_that_the_services_sign_in_as() -> None:
    manifests = named("strimzi")
    user = only(manifests, "KafkaUser", "postrail")
    kafka = complete(base(manifests)).log.kafka
    assert kafka is not None
    assert kafka.sasl is not None
    assert kafka.sasl.username == user["metadata"]["name"]
    assert kafka.bootstrap_servers == ("postrail-kafka-bootstrap.mail.svc:9093",)
    assert kafka.tls.enabled
    assert only(manifests, "Kafka", "postrail")["spec"]["kafka"]["config"]["min.insync.replicas"] == 2


def test_an_evaluation_broker_has_one_copy_of_everything() -> None:
    kafka = complete(base(named("evaluation"))).log.kafka
    assert kafka is not None
    assert (kafka.replication_factor, kafka.min_insync_replicas, kafka.partitions) == (1, 1, 4)
    broker = only(named("evaluation"), "StatefulSet", "postrail-kafka")
    assert broker["spec"]["volumeClaimTemplates"]
    without_volume = only(named("custom-images"), "StatefulSet", "mail-kafka")
    assert "volumeClaimTemplates" not in without_volume["spec"]
    assert "command" not in without_volume["spec"]["template"]["spec"]["containers"][0]


def test_monitoring_is_made_where_the_cluster_has_it() -> None:
    kinds = {manifest["kind"] for manifest in named("minimal")}
    assert not kinds & {"PodMonitor", "PrometheusRule"}
    values = str(ROOT / "tests" / "golden" / "chart" / "minimal.yaml")
    apis = [f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "PrometheusRule")]
    done = helm("template", "postrail", str(CHART), "-f", values, *(f"--api-versions={api}" for api in apis))
    assert {"PodMonitor", "PrometheusRule"} <= {one["kind"] for one in yaml.safe_load_all(done.stdout) if one}
    assert not [one for one in named("no-monitoring") if "dashboard" in one["metadata"]["name"]]


def test_alerts_name_the_runbooks_where_the_values_say() -> None:
    rules = only(named("everything"), "PrometheusRule", "postrail")["spec"]["groups"]
    urls = {rule["annotations"]["runbook_url"] for group in rules for rule in group["rules"]}
    assert all(url.startswith("https://docs.example.com/runbooks/") for url in urls)
    summaries = [rule["annotations"]["summary"] for group in rules for rule in group["rules"]]
    assert any("{{ $labels.pool }}" in summary for summary in summaries), (
        "Prometheus's own templates must survive Helm's"
    )


def test_host_network_is_in_a_namespace_of_its_own() -> None:
    manifests = named("host-network")
    assert (
        only(manifests, "Namespace", "mail-senders")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "privileged"
    )
    assert only(manifests, "DaemonSet", "postrail-egress")["metadata"]["namespace"] == "mail-senders"
    outside = [one for one in manifests if one["kind"] == "Role" and one["metadata"]["namespace"] == "mail-senders"]
    assert len(outside) == 1
    [changed] = [rule for rule in outside[0]["rules"] if rule["resources"] == ["secrets"] and "patch" in rule["verbs"]]
    assert set(changed["resourceNames"]) >= {"postrail-config", "kafka-ca", "s3"}


@every_value_set
def test_the_operator_is_given_no_more_than_it_needs(values: Path) -> None:
    for manifest in rendered(values):
        if manifest["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in manifest["rules"]:
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            if manifest["kind"] == "ClusterRole":
                assert rule["resources"] in (["nodes"], ["ciliumegressgatewaypolicies"])
                assert rule["resources"] != ["nodes"] or set(rule["verbs"]) == {"get", "list", "watch"}
            if "secrets" in rule["resources"] and set(rule["verbs"]) & {"update", "patch", "delete"}:
                assert rule["resourceNames"], "Secrets that are not the operator's must not be changed"


@every_value_set
def test_nothing_is_admitted_that_no_policy_names(values: Path) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered(values) if one["kind"] == "NetworkPolicy"}
    deny = policies[f"{fullname(values)}-deny"]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert not deny.get("ingress")
    assert not deny.get("egress")
    for name, spec in policies.items():
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule.get("ports"), f"{name} admits every port"


def test_senders_may_not_reach_private_networks() -> None:
    spec = only(named("minimal"), "NetworkPolicy", "postrail-sender")["spec"]
    [rule] = spec["egress"]
    assert rule["ports"] == [{"port": 25}]
    assert "10.0.0.0/8" in rule["to"][0]["ipBlock"]["except"]


REFUSED = [
    ("", "hostname is empty: set it to the name that the system gives"),
    ("kafka.bootstrapServers=null", "kafka: nothing says where Kafka is: set kafka.bootstrapServers"),
    ("kafka.evaluation.enabled=true", "not several"),
    ("kafka.bootstrapServers={kafka}", "at '/kafka/bootstrapServers/0': 'kafka' does not match pattern"),
    ("kafka.tls.caSecret=ca", "set kafka.tls.enabled=true"),
    ("kafka.sasl.enabled=true", "set kafka.sasl.username and kafka.sasl.secret"),
    (
        "kafka.sasl.mechanism=MD5",
        "at '/kafka/sasl/mechanism': value must be one of 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'",
    ),
    ("kafka.minInsyncReplicas=4", "nothing could ever be stored"),
    ("kafka.partition=3", "at '/kafka': additional properties 'partition' not allowed"),
    ("blobs.claim.existing=", "large bodies must lie where all pods can read them"),
    ("blobs.store=s3", "blobs.store is s3: set blobs.s3.bucket"),
    ("blobs.store=s3,blobs.s3.bucket=b,blobs.s3.endpoint=http://s3", "blobs.s3.endpoint is without TLS"),
    ("ingress.tls.secret=", "ingress.tls: listeners need one certificate"),
    ("ingress.tls.secret=,ingress.tls.certManager.enabled=true", "name the Issuer or ClusterIssuer that signs"),
    (
        "ingress.listeners[0].kind=trusted,ingress.listeners[0].port=2525,ingress.listeners[0].servicePort=25",
        "is trusted: set networks",
    ),
    (
        "ingress.listeners[0].kind=submission,ingress.listeners[0].port=587,ingress.listeners[0].servicePort=587",
        "minimum: got 587, want 1,024",
    ),
    ("ingress.replicas=two", "at '/ingress/replicas': got string, want integer"),
    ("routing.groups={gmail}", "routing.groups must contain default"),
    ("senders.hostNetwork.enabled=true", "need a namespace of their own"),
    ("senders.hostNetwork.enabled=true,senders.hostNetwork.namespace=out", "cannot mount a claim of this one"),
    ("senders.hostNetwork.namespace=out,egress.enabled=true", "egress.clients (the networks of the pods"),
    (
        (
            "egress.addresses[0].address=192.0.2.1,egress.addresses[0].port=1081,"
            "egress.addresses[1].address=192.0.2.2,egress.addresses[1].port=1081"
        ),
        "egress.addresses: the port 1081 stands twice",
    ),
    ("egress.clients={pods}", "at '/egress/clients/0': 'pods' does not match pattern"),
    ("senders.drainSeconds=80", "it must exceed senders.drainSeconds + ingress.preStopSeconds + 30 (115)"),
    ("config.pools.a=1", "config.pools: the operator writes pools from their objects; remove it"),
    ("monitoring.rules=sometimes", "at '/monitoring/rules': value must be one of 'auto', true, false"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[change or "nothing" for change, _ in REFUSED])
def test_wrong_values_are_refused_in_words(change: str, message: str) -> None:
    minimal = ("-f", str(ROOT / "tests" / "golden" / "chart" / "minimal.yaml"), "--set", change) if change else ()
    done = helm("template", "postrail", str(CHART), *minimal)
    assert done.returncode != 0
    assert message in done.stderr


def test_notes_say_what_to_do_next(tmp_path: Path) -> None:
    """Helm shows notes only where it installs, so here they are rendered as a manifest."""
    chart = shutil.copytree(CHART, tmp_path / "postrail")
    notes = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    manifest = '{{- define "notes" }}' + notes + '{{ end }}\nkind: Notes\ntext: {{ include "notes" . | toJson }}\n'
    (chart / "templates" / "shown.yaml").write_text(manifest, encoding="utf-8")
    values = str(ROOT / "tests" / "golden" / "chart" / "evaluation.yaml")
    done = helm("template", "postrail", str(chart), "--namespace", "mail", "-f", values, "-s", "templates/shown.yaml")
    assert done.returncode == 0, done.stderr
    text = yaml.safe_load(done.stdout)["text"]
    assert "Apply an IPPool, a SenderPool, a SendingDomain and a Submitter" in text
    assert "postrail-ingress.mail.svc" in text
    assert "one broker, to try the system" in text
    assert "Nobody signed the certificate" in text
