"""`kubectl postrail`: what is patched, in which pod is asked, and what an error of kubectl means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from postrail.cli.kubectl import changes, main
from postrail.cli.kubectl.client import Conflict, Connection, KubectlFailed, NotFound, explain
from postrail.cli.kubectl.pods import Place, choose, selector
from postrail.core.annotations import QUARANTINE, WEIGHTS
from postrail.core.kinds import DESTINATION, IP_POOL, SENDER_POOL
from tests.support.kubernetes_objects import body, ip_pool, sender_pool

ONE, TWO = "192.0.2.1", "192.0.2.2"
Object = dict[str, Any]


def patched(found: Any, patch: Any) -> Any:
    """As RFC 7396 says."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(found) if isinstance(found, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = patched(result.get(key), value)
    return result


def test_targets_are_named_by_kind_or_address() -> None:
    every = (SENDER_POOL, DESTINATION, IP_POOL)
    assert changes.target("sp/a", every) == changes.Target(SENDER_POOL, "a")
    assert changes.target("senderpools/a", every) == changes.Target(SENDER_POOL, "a")
    assert changes.target("Destination/gmail", every) == changes.Target(DESTINATION, "gmail")
    assert changes.target("2001:DB8::01", every) == changes.Target(IP_POOL, address="2001:db8::1")


@pytest.mark.parametrize("text", ["a", "sp/", "submitter/a", "ippool/a", ONE, "pods/x"])
def test_a_target_that_a_command_is_not_about_is_refused(text: str) -> None:
    with pytest.raises(KubectlFailed, match="name senderpool/NAME or destination/NAME") as refused:
        changes.target(text, (SENDER_POOL, DESTINATION))
    assert refused.value.status == 64


def test_suspending_and_resuming_end_where_they_began() -> None:
    for kind, found in (
        (SENDER_POOL, sender_pool("a", "a", "p")),
        (DESTINATION, body("Destination", "gmail", {"limits": {"connections": 2}})),
    ):
        assert changes.suspended(found, kind, suspend=False) is None, "it is not suspended"
        first = changes.suspended(found, kind, suspend=True)
        assert first is not None
        held = patched(found, first)
        kind.spec.model_validate(held["spec"], by_alias=True, by_name=False)  # what the cluster keeps is valid
        assert changes.suspended(held, kind, suspend=True) is None
        second = changes.suspended(held, kind, suspend=False)
        again = patched(held, second)
        assert again["spec"] | {"suspend": False} == found["spec"] | {"suspend": False}


def test_a_patch_is_for_the_version_that_was_read() -> None:
    found = sender_pool("a", "a", "p")
    found["metadata"]["resourceVersion"] = "7"
    patch = changes.suspended(found, SENDER_POOL, suspend=True)
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"suspend": True}}


def test_a_drained_address_gets_its_weight_back() -> None:
    pool = ip_pool("p", ONE, TWO)
    pool["spec"]["addresses"][0]["weight"] = 30
    drained = patched(pool, changes.drained(pool, ONE))
    assert [entry.get("weight", 100) for entry in drained["spec"]["addresses"]] == [0, 100]
    assert changes.drained(drained, ONE) is None
    both = patched(drained, changes.drained(drained, TWO))
    assert both["metadata"]["annotations"][WEIGHTS] == f"{ONE}=30,{TWO}=100"
    back = patched(both, changes.resumed(both, ONE))
    assert [entry.get("weight") for entry in back["spec"]["addresses"]] == [30, 0]
    assert back["metadata"]["annotations"][WEIGHTS] == f"{TWO}=100"
    last = patched(back, changes.resumed(back, TWO))
    assert WEIGHTS not in last["metadata"]["annotations"]
    assert changes.resumed(last, TWO) is None


def test_an_address_whose_weight_nobody_kept_gets_the_usual_one() -> None:
    pool = ip_pool("p", ONE, annotations={WEIGHTS: f"nonsense, {ONE}=x, =3"})
    pool["spec"]["addresses"][0]["weight"] = 0
    back = patched(pool, changes.resumed(pool, ONE))
    assert back["spec"]["addresses"][0]["weight"] == 100


def test_quarantine_is_a_list_that_grows_and_shrinks() -> None:
    pool = ip_pool("p", ONE, TWO)
    first = patched(pool, changes.quarantined(pool, ONE))
    assert first["metadata"]["annotations"] == {QUARANTINE: ONE}
    assert changes.quarantined(first, ONE) is None
    both = patched(first, changes.quarantined(first, TWO))
    assert both["metadata"]["annotations"] == {QUARANTINE: f"{ONE},{TWO}"}
    rest = patched(both, changes.released(both, ONE))
    assert rest["metadata"]["annotations"] == {QUARANTINE: TWO}
    none = patched(rest, changes.released(rest, TWO))
    assert none["metadata"]["annotations"] == {}
    assert changes.released(none, TWO) is None


def test_one_address_leaves_the_quarantine_of_a_whole_pool() -> None:
    pool = ip_pool("p", ONE, TWO)
    whole = patched(pool, changes.quarantined(pool, changes.EVERY))
    assert whole["metadata"]["annotations"] == {QUARANTINE: "*"}
    assert changes.quarantined(whole, ONE) is None
    assert patched(whole, changes.released(whole, ONE))["metadata"]["annotations"] == {QUARANTINE: TWO}
    assert patched(whole, changes.released(whole, changes.EVERY))["metadata"]["annotations"] == {}


def test_it_is_known_when_no_address_is_left() -> None:
    pool = ip_pool("p", ONE, TWO)
    assert changes.usable(pool, None) == [ONE, TWO]
    drain = changes.drained(pool, ONE)
    assert changes.usable(pool, drain) == [TWO]
    half = patched(pool, drain)
    assert changes.usable(half, changes.quarantined(half, TWO)) == []
    quarantined = patched(half, changes.quarantined(half, TWO))
    assert changes.usable(quarantined, changes.released(quarantined, TWO)) == [TWO]


def test_the_pool_of_an_address_is_the_one_that_has_it() -> None:
    taken = {"addresses": [{"address": ONE, "state": "Taken"}]}
    second = ip_pool("second", ONE, status=taken)
    assert changes.pool_of(ONE, [second, ip_pool("first", ONE)], "here")["metadata"]["name"] == "first"
    assert changes.pool_of(ONE, [second], "here")["metadata"]["name"] == "second"
    with pytest.raises(NotFound, match=r"no IPPool in here has the address 192\.0\.2\.9"):
        changes.pool_of("192.0.2.9", [second], "here")


def pod(component: str, *, phase: str = "Running", ready: bool = True, release: str = "mail", **more: Any) -> Object:
    labels = {"app.kubernetes.io/component": component, "app.kubernetes.io/instance": release}
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}], **more.pop("status", {})}
    return {
        "metadata": {"name": f"{release}-{component}-1", "labels": labels, **more},
        "spec": {"containers": [{"name": component}]},
        "status": status,
    }


def test_the_pod_that_does_least_is_asked() -> None:
    found = [pod("operator"), pod("sender"), pod("routing"), pod("scheduler"), pod("kafka")]
    assert choose(found, "here") == Place("mail-scheduler-1", "scheduler", "mail")
    assert choose([pod("routing", ready=False), pod("sender")], "here").pod == "mail-sender-1"
    assert choose([pod("routing", ready=False)], "here").pod == "mail-routing-1"
    assert selector("mail") == "app.kubernetes.io/name=postrail,app.kubernetes.io/instance=mail"


def test_no_pod_that_runs_is_told_with_the_reason() -> None:
    waiting = {"initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    leaving = pod("ingress", deletionTimestamp="2026-11-22T10:00:00Z")
    with pytest.raises(KubectlFailed) as missing:
        choose([pod("routing", phase="Pending", status=waiting), leaving], "here")
    assert missing.value.status == 69
    assert "mail-routing-1 is ImagePullBackOff, mail-ingress-1 is Terminating" in str(missing.value)
    with pytest.raises(KubectlFailed, match="no pods at all"):
        choose([pod("operator")], "here")
    with pytest.raises(KubectlFailed, match=r"several releases \(a, b\): choose with --release"):
        choose([pod("routing", release="a"), pod("routing", release="b")], "here")


ERRORS = [
    ('Error from server (Forbidden): senderpools is forbidden: User "x" cannot patch', 77, "kubernetes/kubectl.md"),
    ("error: You must be logged in to the server (Unauthorized)", 77, "does not know you"),
    ('Error from server (NotFound): senderpools.postrail.io "x" not found', 1, "looked in the namespace mail"),
    ('error: the server doesn\'t have a resource type "senderpools"', 69, "does not know the kinds of Postrail"),
    (
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
        69,
        "no cluster",
    ),
    ("Unable to connect to the server: dial tcp: lookup k8s.example: no such host", 69, "no cluster answers"),
    ("Error in configuration: context was not found for specified context: x", 78, "--context"),
    ("error: stat /nowhere: no such file or directory", 78, "--kubeconfig"),
    ("E1122 13:33:18.1   20515 memcache.go:287] noise\nError from server: it broke", 1, "Error from server: it broke"),
    ("", 1, "kubectl said nothing"),
]


@pytest.mark.parametrize(("said", "status", "told"), ERRORS)
def test_what_kubectl_refused_is_told_with_what_to_do(said: str, status: int, told: str) -> None:
    failed = explain(said + "\n", "kubectl patch", Connection(namespace="mail"))
    assert failed.status == status
    assert told in str(failed)
    assert "memcache" not in str(failed)


def test_a_conflict_is_worth_another_try() -> None:
    said = "Error from server (Conflict): Operation cannot be fulfilled"
    assert isinstance(explain(said, "kubectl patch", Connection()), Conflict)


def test_options_of_the_cluster_stand_before_or_after_the_command() -> None:
    before, rest = main.parser().parse_known_args(["-n", "mail", "queue", "--messages", "--site", "gmail"])
    after, other = main.parser().parse_known_args(["queue", "--messages", "--site", "gmail", "-n", "mail"])
    assert before.namespace == after.namespace == "mail"
    assert rest == other == ["--messages", "--site", "gmail"], "what the command in the pod is given"


def test_a_wrong_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main.main(["suspend", "sp/a", "--forever"])
    assert wrong.value.code == 64
    assert "suspend knows nothing of --forever" in capsys.readouterr().err
