"""Plans: what differs is applied, what is too much is deleted, and a plan on its own result is empty."""

import copy
from base64 import b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from postrail_operator.compose import compose
from postrail_operator.objects import Manifest
from postrail_operator.plan import (
    Action,
    Apply,
    Delete,
    Ref,
    difference,
    first_read,
    plan,
    quantity,
    ref_of,
    rollouts,
    with_first_read,
)
from postrail_operator.render import MADE_BY, config_digest, manifests, template_secrets
from postrail_operator.senders import Cluster, host_ports, senders
from tests.support.kubernetes_objects import BASE, SETTINGS, TEMPLATE, body, ip_pool, read, sender_pool
from tests.unit.test_operator_compose import WHOLE

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "operator"
DIRECT = {"mode": "direct", "nodeSelector": {"mail": "a"}}
NODES = [{"mail": "a", "zone": "1"}, {"mail": "a"}, {"mail": "b"}]


def desired(*bodies: Any, cluster: Cluster | None = None) -> list[Manifest]:
    objects = read(*bodies)
    cluster = cluster or Cluster()
    return manifests(objects, compose(BASE, objects, gateways=cluster.cilium), SETTINGS, cluster, TEMPLATE)


def configuration(found: list[Manifest]) -> dict[str, Any]:
    """What the services read."""
    secret = next(one for one in found if one["metadata"]["name"] == "postrail-config")
    made: dict[str, Any] = yaml.safe_load(b64decode(secret["data"]["postrail.yaml"]))
    return made


def act(observed: Iterable[Manifest], actions: Iterable[Action]) -> list[Manifest]:
    """What the cluster has afterwards: applied manifests with what the API server adds."""
    cluster = {ref_of(manifest): manifest for manifest in observed}
    for action in actions:
        if isinstance(action, Delete):
            del cluster[action.ref]
        else:
            manifest = copy.deepcopy(action.manifest)
            manifest["metadata"] |= {"uid": "1", "resourceVersion": "7"}
            manifest["status"] = {"observedGeneration": 1}
            cluster[action.ref] = manifest
    return list(cluster.values())


def named(found: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in found if manifest["kind"] == kind}


CASES = {
    "whole": (WHOLE, Cluster()),
    "keda": (
        (ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i", spec={"autoscaling": {"maxReplicas": 4}})),
        Cluster(keda=True),
    ),
    "direct": (
        (ip_pool("i", "192.0.2.1", binding=DIRECT), sender_pool("a", "s", "i", spec={"replicas": 9})),
        Cluster(nodes=NODES, template_secrets={"kafka": {"password": b"secret"}}),
    ),
    "nodes": (
        (
            body(
                "IPPool",
                "i",
                {
                    "addresses": [
                        {
                            "address": f"192.0.2.{host}",
                            "ehlo": f"out{host}.example.com",
                            "proxy": f"socks5://10.0.0.{host}:1081",
                        }
                        for host in (1, 2)
                    ],
                    "binding": DIRECT,
                },
            ),
            sender_pool("a", "s", "i", spec={"replicas": 9}),
        ),
        Cluster(nodes=NODES, template_secrets={"kafka": {"password": b"secret"}}),
    ),
    "gateway": (
        (
            ip_pool("i", "192.0.2.1", binding={"mode": "egressGateway", "gateway": {"nodeSelector": {"egress": "a"}}}),
            sender_pool("a", "s", "i"),
        ),
        Cluster(cilium=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_as_expected(case: str, update_golden: bool) -> None:
    bodies, cluster = CASES[case]
    text = yaml.safe_dump_all(desired(*bodies, cluster=cluster), sort_keys=True)
    golden = GOLDEN / f"{case}.yaml"
    if update_golden:
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("case", CASES)
def test_plan_on_its_own_result_is_empty(case: str) -> None:
    bodies, cluster = CASES[case]
    wanted = desired(*bodies, cluster=cluster)
    first = plan(wanted, [])
    assert len(first) == len(wanted)
    assert plan(wanted, act([], first)) == []


def test_secrets_come_before_what_reads_them_and_go_after() -> None:
    wanted = desired(*WHOLE)
    assert [ref_of(action.manifest).kind for action in plan(wanted, []) if isinstance(action, Apply)][:2] == [
        "Secret"
    ] * 2
    deleted = [action.ref.kind for action in plan([], wanted) if isinstance(action, Delete)]
    assert deleted[-2:] == ["Secret", "Secret"]


def test_object_that_somebody_changed_is_put_right() -> None:
    wanted = desired(*WHOLE)
    observed = act([], plan(wanted, []))
    victim = next(manifest for manifest in observed if manifest["kind"] == "Deployment")
    victim["spec"]["replicas"] = 17
    (action,) = plan(wanted, observed)
    assert isinstance(action, Apply)
    assert action.why == "spec.replicas differs"


def test_field_that_is_no_longer_said_is_taken_back() -> None:
    observed = act([], plan(desired(*WHOLE), []))
    fewer = desired(*(one for one in WHOLE if one["kind"] != "SendingDomain"))
    assert any(ref.name == "postrail-keys" for ref in (action.ref for action in plan(fewer, observed)))


def test_nothing_is_deleted_of_a_pool_that_is_kept() -> None:
    observed = act([], plan(desired(*WHOLE), []))
    without = [one for one in WHOLE if one["metadata"]["name"] != "marketing"]
    actions = plan(desired(*without), observed, keep_pools=frozenset({"marketing"}))
    assert [action for action in actions if isinstance(action, Delete)] == []
    assert [action.ref.name for action in plan(desired(*without), observed) if isinstance(action, Delete)] == [
        "postrail-sender-marketing-yahoo",
        "postrail-sender-marketing-others",
        "postrail-sender-marketing-yahoo",
        "postrail-sender-marketing-others",
    ]


def test_objects_that_make_no_configuration_ask_for_nothing() -> None:
    objects = read(*WHOLE)
    made = compose({**BASE, "log": {**BASE["log"], "retention_seconds": 1}}, objects)
    assert manifests(objects, made, SETTINGS, Cluster(), TEMPLATE) == []


def test_everything_made_is_found_again_by_its_label() -> None:
    assert all(manifest["metadata"]["labels"][MADE_BY] == "operator" for manifest in desired(*WHOLE))


def test_group_of_its_own_is_left_to_its_senders() -> None:
    found = named(desired(*WHOLE), "Deployment")
    own = found["postrail-sender-marketing-yahoo"]["spec"]["template"]["spec"]["containers"][0]["args"]
    rest = found["postrail-sender-marketing-others"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert own[3:] == ["--pool", "marketing", "--destination", "yahoo"]
    assert rest[3:] == [
        *("--pool", "marketing", "--destination", "gmail"),
        *("--destination", "default", "--destination", "partners"),
    ]


def test_direct_senders_have_a_namespace_and_ports_of_their_own() -> None:
    bodies, cluster = CASES["direct"]
    found = desired(*bodies, cluster=cluster)
    sender = named(found, "Deployment")["postrail-sender-a-others"]
    pod = sender["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert sender["metadata"]["namespace"] == "mail-direct"
    assert pod["spec"]["hostNetwork"]
    assert pod["spec"]["nodeSelector"] == {"mail": "a"}
    port = container["ports"][0]["containerPort"]
    assert container["args"][-2:] == ["--health-port", str(port)]
    assert sender["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "one port, one pod"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert sender["spec"]["replicas"] == 2, "one on each node that has the addresses"
    copies = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found if one["kind"] == "Secret"}
    assert {("mail-direct", "postrail-config"), ("mail-direct", "kafka")} <= copies
    assert ("mail-direct", "postrail-keys") not in copies


def test_addresses_of_several_nodes_are_reached_from_each_of_them() -> None:
    bodies, cluster = CASES["nodes"]
    found = desired(*bodies, cluster=cluster)
    deployment = named(found, "Deployment")["postrail-sender-a-others"]
    assert deployment["spec"]["replicas"] == 2, "one on each node"
    sources = configuration(found)["pools"]["a"]["sources"]
    assert [(one["address"], one["proxy"], one.get("bind", "direct")) for one in sources] == [
        ("192.0.2.1", "socks5://10.0.0.1:1081", "direct"),
        ("192.0.2.2", "socks5://10.0.0.2:1081", "direct"),
    ]


GATEWAY = {"mode": "egressGateway", "gateway": {"nodeSelector": {"egress": "a"}}}


def behind_a_gateway(address: str, status: Any = None) -> list[Manifest]:
    pool = ip_pool("i", address, binding=GATEWAY)
    return desired(
        pool | ({"status": status} if status else {}), sender_pool("a", "s", "i"), cluster=Cluster(cilium=True)
    )


def test_pods_behind_a_gateway_are_chosen_by_their_address() -> None:
    found = behind_a_gateway("2001:db8::1")
    (policy,) = named(found, "CiliumEgressGatewayPolicy").values()
    pod = named(found, "Deployment")["postrail-sender-a-others"]["spec"]["template"]
    wanted = policy["spec"]["selectors"][0]["podSelector"]["matchLabels"]
    assert wanted.pop("io.kubernetes.pod.namespace") == "mail"
    assert wanted.items() <= pod["metadata"]["labels"].items()
    assert wanted["postrail.io/egress-address"] == "2001-0db8-0000-0000-0000-0000-0000-0001"
    assert policy["spec"]["destinationCIDRs"] == ["::/0"]
    (source,) = configuration(found)["pools"]["a"]["sources"]
    assert (source["bind"], source["weight"]) == ("gateway", 100)


def test_mail_of_an_address_that_drains_does_not_leave_from_its_successor() -> None:
    before = {"usedBy": "a", "addresses": [{"address": "192.0.2.1", "ehlo": "out", "state": "Active", "leasedTo": "a"}]}
    found = behind_a_gateway("192.0.2.2", before)
    bound = {one["address"]: one.get("bind", "direct") for one in configuration(found)["pools"]["a"]["sources"]}
    assert bound == {"192.0.2.2": "gateway", "192.0.2.1": "direct"}, (
        "no pod has it, so that its mail waits for the other"
    )
    policies = named(found, "CiliumEgressGatewayPolicy")
    assert [one["spec"]["egressGateway"]["egressIP"] for one in policies.values()] == ["192.0.2.2", "192.0.2.1"]
    pod = named(found, "Deployment")["postrail-sender-a-others"]["spec"]["template"]
    assert pod["metadata"]["labels"]["postrail.io/egress-address"] == "192.0.2.2", (
        "old pods keep the policy of their label"
    )


def test_nothing_leaves_behind_a_gateway_that_is_not_there() -> None:
    found = desired(ip_pool("i", "192.0.2.1", binding=GATEWAY), sender_pool("a", "s", "i"))
    assert not named(found, "CiliumEgressGatewayPolicy")
    (source,) = configuration(found)["pools"]["a"]["sources"]
    assert (source.get("bind", "direct"), source["weight"]) == ("direct", 0)


def test_suspended_pool_runs_no_senders() -> None:
    found = named(desired(ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i", spec={"suspend": True})), "Deployment")
    assert found["postrail-sender-a-others"]["spec"]["replicas"] == 0


def test_submitters_do_not_roll_senders_but_ingress() -> None:
    objects = read(*WHOLE)
    made = compose(BASE, objects)
    without = compose(BASE, read(*(one for one in WHOLE if one["kind"] != "Submitter")))
    assert made.config is not None
    assert without.config is not None
    assert config_digest(made.config, "sender", made.files) == config_digest(without.config, "sender", without.files)
    assert config_digest(made.config, "ingress", made.files) != config_digest(without.config, "ingress", without.files)


def test_quarantine_rolls_routing_only() -> None:
    pool = sender_pool("a", "s", "i")
    before = compose(BASE, read(ip_pool("i", "192.0.2.1", "192.0.2.2"), pool)).config
    after = compose(
        BASE, read(ip_pool("i", "192.0.2.1", "192.0.2.2", annotations={"postrail.io/quarantine": "192.0.2.1"}), pool)
    ).config
    assert before is not None
    assert after is not None
    rolled = [
        component
        for component in ("ingress", "signing", "routing", "scheduler", "sender")
        if config_digest(before, component, {}) != config_digest(after, component, {})
    ]
    assert rolled == ["routing"]


def test_changed_hash_rolls_ingress_and_changed_key_does_not() -> None:
    made = compose(BASE, read(*WHOLE))
    assert made.config is not None
    before = config_digest(made.config, "ingress", made.files)
    assert config_digest(made.config, "ingress", made.files | {"submitter.shop.hash": b"other"}) != before
    assert config_digest(made.config, "ingress", made.files | {"example.com.s1.pem": b"other"}) == before


def _chart(component: str, annotations: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"postrail-{component}",
            "namespace": "mail",
            "labels": {"app.kubernetes.io/component": component},
        },
        "spec": {"replicas": 2, "template": {"metadata": {"annotations": annotations}}},
    }


def test_rollout_is_asked_for_once() -> None:
    made = compose(BASE, read(*WHOLE))
    chart = _chart("ingress", {"other": "x"})
    (action,) = rollouts(made.config, made.files, [chart], {})
    assert action.manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert action.manifest["spec"].keys() == {"template"}
    chart["spec"]["template"]["metadata"]["annotations"] |= action.manifest["spec"]["template"]["metadata"][
        "annotations"
    ]
    assert rollouts(made.config, made.files, [chart], {}) == []
    assert rollouts(None, {}, [chart], {}) == []


def test_pods_that_waited_for_the_first_configuration_are_not_rolled_for_it() -> None:
    made, charts = compose(BASE, read(*WHOLE)), [_chart("ingress", {}), _chart("routing", {})]
    assert made.config is not None
    first = first_read(None, made.config, made.files, charts)
    assert first.keys() == {"ingress", "routing"}
    assert rollouts(made.config, made.files, charts, first) == []

    where = Ref("v1", "Secret", SETTINGS.namespace, SETTINGS.config_secret)
    written = with_first_read(desired(*WHOLE), where, first)
    (secret,) = (manifest for manifest in written if ref_of(manifest) == where)
    changed = made.config | {"submitters": []}
    later = first_read(secret, changed, made.files, charts)
    assert later.keys() == {"routing"}, "only ingress reads what changed"
    assert [action.ref.name for action in rollouts(changed, made.files, charts, later)] == ["postrail-ingress"]

    (again,) = (one for one in with_first_read(desired(*WHOLE), where, later) if ref_of(one) == where)
    back = first_read(again, made.config, made.files, charts)
    assert [action.ref.name for action in rollouts(made.config, made.files, charts, back)] == ["postrail-ingress"]


def test_pods_of_a_configuration_that_nobody_noted_are_rolled() -> None:
    made, charts = compose(BASE, read(*WHOLE)), [_chart("routing", {})]
    assert made.config is not None
    for annotations in ({}, {"postrail.io/first-config": "no JSON"}):
        secret: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"annotations": annotations}}
        first = first_read(secret, made.config, made.files, charts)
        assert len(rollouts(made.config, made.files, charts, first)) == 1


def test_host_ports_are_never_twice() -> None:
    pools = [sender_pool(f"p{n}", f"s{n}", f"i{n}", spec={"destinations": ["gmail", "default"]}) for n in range(40)]
    ips = [ip_pool(f"i{n}", f"192.0.2.{n + 1}", binding=DIRECT) for n in range(40)]
    objects = read(*pools, *ips)
    found = senders(objects, compose(BASE, objects), SETTINGS, Cluster())
    ports = host_ports(found)
    assert len(ports) == len(set(ports.values())) == 80
    assert host_ports(reversed(found)) == ports


def test_secrets_of_the_template_are_found() -> None:
    assert template_secrets(TEMPLATE) == {"postrail-config", "kafka", "s3"}


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b[1]"),
        ({"a": [1]}, {"a": [1, 2]}, "a"),
        ({"cpu": "1000m"}, {"cpu": "1"}, ""),
        ({"memory": "1024Mi"}, {"memory": "1Gi"}, ""),
        ({"cpu": "500m"}, {"cpu": "1"}, "cpu"),
        ({"a": {}}, {}, ""),
        ({"a": []}, {}, ""),
        ({"a": ""}, {}, ""),
        ({"a": 0}, {}, "a"),
        ({"a": False}, {"a": None}, "a"),
        ({"a": "x"}, {"a": {"b": 1}}, "a"),
    ],
)
def test_difference_is_what_is_said_and_does_not_stand_there(left: Any, right: Any, place: str) -> None:
    assert difference(left, right) == place


def test_what_is_no_quantity_has_no_value() -> None:
    assert quantity("1.5.0") is None
    assert quantity("latest") is None


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "x", "1", "1000m", "1Gi"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=8,
)
some_manifests = st.lists(
    st.builds(
        lambda kind, name, spec: {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "mail", "labels": {}},
            "spec": spec,
        },
        st.sampled_from(["Secret", "Deployment", "Other"]),
        st.sampled_from("xyz"),
        values,
    ),
    max_size=6,
    unique_by=lambda manifest: (manifest["kind"], manifest["metadata"]["name"]),
)


@given(some_manifests, some_manifests)
def test_any_plan_on_its_own_result_is_empty(wanted: list[Manifest], observed: list[Manifest]) -> None:
    after = act(observed, plan(wanted, observed))
    assert plan(wanted, after) == []
    assert {ref_of(manifest) for manifest in after} == {ref_of(manifest) for manifest in wanted}


def test_ref_tells_namespace_and_name() -> None:
    assert ref_of(TEMPLATE | {"metadata": {"name": "a", "namespace": "b"}}) == Ref("apps/v1", "Deployment", "b", "a")
