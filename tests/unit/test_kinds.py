"""Objects that are accepted, and the problems that others are told."""

import json
from typing import Any

import pytest

from postrail.core import kinds
from postrail.core.kind_specs import DestinationSpec, IPPoolSpec, SenderPoolSpec, SendingDomainSpec, SubmitterSpec
from postrail.core.kind_status import ConditionStatus, SenderPoolStatus
from postrail.core.kinds import BY_NAME, InvalidObject, read_spec, write_status

ADDRESS = {"address": "192.0.2.1", "ehlo": "out1.example.com"}
GATEWAY = {"mode": "egressGateway", "gateway": {"nodeSelector": {"egress": "a"}}}
DIRECT = {"mode": "direct", "nodeSelector": {"mail": "yes"}}

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("IPPool", {"addresses": [ADDRESS], "binding": DIRECT}),
    (
        "IPPool",
        {"addresses": [ADDRESS | {"weight": 0}], "binding": {"mode": "socks5", "proxy": "socks5://egress.mail"}},
    ),
    (
        "IPPool",
        {
            "addresses": [ADDRESS | {"proxy": "socks5://10.0.0.1:1080"}],
            "binding": {
                "mode": "socks5",
                "proxyLogin": {"username": "mail", "passwordSecretRef": {"name": "egress", "key": "password"}},
            },
        },
    ),
    (
        "IPPool",
        {"addresses": [ADDRESS], "binding": {"mode": "egressGateway", "gateway": {"nodeSelector": {"egress": "a"}}}},
    ),
    ("SenderPool", {"stream": "transactional", "ipPoolRef": {"name": "main"}}),
    (
        "SenderPool",
        {
            "stream": "marketing",
            "lane": "bulk",
            "lifetimeSeconds": 86400,
            "ipPoolRef": {"name": "bulk"},
            "destinations": ["gmail", "default"],
            "replicas": 3,
            "autoscaling": {"minReplicas": 1, "maxReplicas": 6, "targetDrainSeconds": 30},
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
        },
    ),
    ("Destination", {}),
    (
        "Destination",
        {
            "mxSuffixes": ["mx.example.net"],
            "group": "default",
            "limits": {
                "connections": 3,
                "messagesPerSecond": 0.5,
                "tlsRequired": True,
                "sources": {"192.0.2.1": {"connections": 1}},
            },
        },
    ),
    (
        "SendingDomain",
        {
            "domain": "Example.com.",
            "dkim": {"keys": [{"selector": "s1", "secretRef": {"name": "dkim", "key": "s1.pem"}}]},
        },
    ),
    ("Submitter", {"domains": ["example.com"], "stream": "transactional"}),
    (
        "Submitter",
        {
            "domains": [".example.com"],
            "username": "shop",
            "passwordSecretRef": {"name": "shop", "key": "hash"},
            "streams": ["marketing"],
            "messagesPerMinute": 600,
            "nullSender": True,
        },
    ),
]

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("IPPool", {"addresses": [], "binding": DIRECT}, "spec.addresses: Tuple should have at least 1 item"),
    ("IPPool", {"addresses": [ADDRESS]}, "spec.binding: Field required"),
    ("IPPool", {"addresses": [ADDRESS | {"address": "192.0.2.300"}], "binding": DIRECT}, "spec.addresses.0.address: "),
    ("IPPool", {"addresses": [ADDRESS, ADDRESS], "binding": DIRECT}, "spec: 192.0.2.1 stands twice under addresses"),
    ("IPPool", {"addresses": [ADDRESS], "binding": {}}, "spec.binding: direct needs nodeSelector"),
    ("IPPool", {"addresses": [ADDRESS], "binding": {"mode": "socks5"}}, "spec: socks5 needs a proxy"),
    (
        "IPPool",
        {"addresses": [ADDRESS], "binding": GATEWAY | {"proxy": "socks5://a"}},
        "proxy is not for egressGateway",
    ),
    (
        "IPPool",
        {
            "addresses": [ADDRESS],
            "binding": DIRECT | {"proxyLogin": {"username": "m", "passwordSecretRef": {"name": "e", "key": "p"}}},
        },
        "proxyLogin is for socks5",
    ),
    (
        "IPPool",
        {"addresses": [ADDRESS | {"proxy": "socks5://a"}], "binding": GATEWAY},
        "spec: the proxy of an address is not for binding.mode egressGateway",
    ),
    (
        "IPPool",
        {"addresses": [ADDRESS], "binding": DIRECT | {"gateway": {"nodeSelector": {"a": "b"}}}},
        "egressGateway",
    ),
    (
        "IPPool",
        {
            "addresses": [ADDRESS, ADDRESS | {"address": "192.0.2.2"}],
            "binding": {"mode": "egressGateway", "gateway": {"nodeSelector": {"a": "b"}}},
        },
        "such a pool has one address",
    ),
    ("IPPool", {"addresses": [ADDRESS | {"bind_to": "x"}], "binding": DIRECT}, "spec.addresses.0.bindTo: Extra inputs"),
    ("SenderPool", {"stream": "transactional"}, "spec.ipPoolRef: Field required"),
    ("SenderPool", {"stream": "transactional", "ip_pool_ref": {"name": "main"}}, "spec.ipPoolRef: Field required"),
    ("SenderPool", {"stream": "Big", "ipPoolRef": {"name": "main"}}, "spec.stream: "),
    ("SenderPool", {"stream": "a", "ipPoolRef": {"name": "main"}, "replicas": -1}, "spec.replicas: "),
    (
        "SenderPool",
        {"stream": "a", "ipPoolRef": {"name": "main"}, "autoscaling": {"minReplicas": 5, "maxReplicas": 2}},
        "spec.autoscaling: minReplicas must not exceed maxReplicas",
    ),
    ("Destination", {"limits": {"messagesPerSecond": 0}}, "spec.limits.messagesPerSecond: "),
    ("SendingDomain", {"domain": "example.com", "dkim": {"keys": []}}, "spec.dkim.keys: "),
    ("Submitter", {"domains": []}, "spec.domains: "),
    ("Submitter", {"domains": ["example.com"], "name": "shop"}, "spec.name: Extra inputs are not permitted"),
    ("Submitter", {"domains": ["example.com"], "passwordSecretRef": {"name": "shop"}}, "spec.passwordSecretRef.key: "),
]


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_good_object_is_accepted(kind: str, spec: dict[str, Any]) -> None:
    assert isinstance(read_spec(BY_NAME[kind], spec), BY_NAME[kind].spec)


@pytest.mark.parametrize(("kind", "spec", "problem"), BAD)
def test_bad_object_is_told_what_is_wrong_and_where(kind: str, spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        read_spec(BY_NAME[kind], spec)
    assert problem in str(caught.value)


def test_each_problem_is_a_line() -> None:
    with pytest.raises(InvalidObject) as caught:
        read_spec(kinds.SENDER_POOL, {"replicas": -1})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "spec.stream",
        "spec.ipPoolRef",
        "spec.replicas",
    ]


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_what_is_written_is_read_again(kind: str, spec: dict[str, Any]) -> None:
    first = read_spec(BY_NAME[kind], spec)
    assert read_spec(BY_NAME[kind], json.loads(first.model_dump_json(by_alias=True, exclude_none=True))) == first


def test_fields_of_later_releases_are_named_when_set() -> None:
    pool = read_spec(kinds.IP_POOL, {"addresses": [ADDRESS], "binding": DIRECT, "warmup": {"startedOn": "2026-11-22"}})
    site = read_spec(kinds.DESTINATION, {"tlsPolicy": {"mode": "dane"}, "automation": []})
    domain = read_spec(
        kinds.SENDING_DOMAIN,
        {
            "domain": "example.com",
            "dkim": {"keys": [{"selector": "a", "secretRef": {"name": "a", "key": "k"}}], "rotation": {}},
            "returnPath": "bounce.example.com",
        },
    )
    assert list(pool.not_yet_acting()) == ["warmup"]
    assert list(site.not_yet_acting()) == ["tls_policy", "automation"]
    assert list(domain.not_yet_acting()) == ["return_path", "rotation"]


@pytest.mark.parametrize(("kind", "spec"), GOOD)
def test_nothing_is_named_that_is_not_set(kind: str, spec: dict[str, Any]) -> None:
    assert read_spec(BY_NAME[kind], spec).not_yet_acting() == {}


def test_specs_are_those_of_their_kinds() -> None:
    assert [kind.spec for kind in kinds.KINDS] == [
        IPPoolSpec,
        SenderPoolSpec,
        DestinationSpec,
        SendingDomainSpec,
        SubmitterSpec,
    ]


def test_status_is_written_in_kubernetes_names_without_unknowns() -> None:
    condition = ConditionStatus(
        type="Accepted",
        status="True",
        reason="Accepted",
        last_transition_time="2026-11-22T11:00:00Z",
        observed_generation=2,
    )
    status = SenderPoolStatus(observed_generation=2, conditions=(condition,), ready_replicas=1)
    written = write_status(status)
    assert written["readyReplicas"] == 1
    assert "eligibleDeliveries" not in written
    assert written["conditions"] == [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2026-11-22T11:00:00Z",
            "observedGeneration": 2,
        }
    ]
