"""What the status of each object says: conditions with their times, leases, records, and why something is not deleted."""

from typing import Any

import pytest

from postrail.core.conditions import Condition, ConditionType, Reason, Truth
from postrail_operator.compose import compose
from postrail_operator.conditions import Load, Seen, SenderState
from postrail_operator.objects import Objects
from postrail_operator.statuses import changed, events_of, merge, status_of
from tests.support.kubernetes_objects import BASE, body, ip_pool, read, sender_pool, sending_domain, submitter

NOW, LATER = "2026-11-22T12:00:00Z", "2026-11-22T12:05:00Z"
POOLS = (ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i"))


def status(objects: Objects, kind: str, name: str, seen: Seen | None = None, now: str = NOW) -> dict[str, Any]:
    (item,) = (item for item in objects.every if item.key == (kind, name))
    return status_of(item, objects, compose(BASE, objects), seen or Seen(), now)


def condition(found: dict[str, Any], kind: ConditionType) -> dict[str, Any]:
    (one,) = (one for one in found["conditions"] if one["type"] == kind)
    assert isinstance(one, dict)
    return one


def short(found: dict[str, Any], kind: ConditionType) -> tuple[str, str]:
    one = condition(found, kind)
    return (one["status"], one["reason"])


def test_every_condition_says_type_reason_message_time_and_generation() -> None:
    found = status(read(*POOLS), "SenderPool", "a")
    for one in found["conditions"]:
        assert one["message"]
        assert one["lastTransitionTime"] == NOW
        assert one["observedGeneration"] == found["observedGeneration"] == 1


def test_condition_keeps_its_time_while_its_status_stays() -> None:
    before = Condition(ConditionType.READY, Truth.FALSE, Reason.PENDING, "none of 2")
    after = Condition(ConditionType.READY, Truth.FALSE, Reason.SUSPENDED, "suspended")
    well = Condition(ConditionType.READY, Truth.TRUE, Reason.READY, "2 of 2")
    first = [one.model_dump(by_alias=True) for one in merge((), [before], NOW, 1)]
    (second,) = merge(first, [after], LATER, 2)
    assert (second.last_transition_time, second.reason, second.observed_generation) == (NOW, "Suspended", 2)
    (third,) = merge([second.model_dump(by_alias=True)], [well], LATER, 2)
    assert third.last_transition_time == LATER


def test_status_written_again_changes_nothing() -> None:
    bodies = [*POOLS, sending_domain("d", "example.com"), submitter("shop", "s"), body("Destination", "gmail", {})]
    objects = read(*bodies)
    for one in bodies:
        one["status"] = status(objects, one["kind"], one["metadata"]["name"])
    again = read(*bodies)
    for item in again.every:
        assert not changed(item, status(again, *item.key, now=LATER)), item.key
        assert events_of(item, status(again, *item.key, now=LATER)) == []


def test_what_does_nothing_yet_is_said() -> None:
    pool = ip_pool("i", "192.0.2.1", spec={"warmup": {"startedOn": "2026-11-22"}})
    domain = sending_domain("d", "example.com", spec={"returnPath": "bounce.example.com"})
    site = body("Destination", "gmail", {"tlsPolicy": {"mode": "dane"}, "automation": []})
    objects = read(pool, domain, site)
    for kind, name, words in (
        ("IPPool", "i", "spec.warmup does nothing in this release: addresses send as much as the limits allow"),
        ("SendingDomain", "d", "spec.returnPath does nothing"),
        ("Destination", "gmail", "spec.tlsPolicy does nothing"),
        ("Destination", "gmail", "spec.automation does nothing"),
    ):
        found = status(objects, kind, name)
        assert short(found, ConditionType.HONOURED) == ("False", "NotYetActing")
        assert words in condition(found, ConditionType.HONOURED)["message"]
        assert short(found, ConditionType.ACCEPTED) == ("True", "Accepted")


def test_rotation_is_named_where_it_stands() -> None:
    keys = [{"selector": "s1", "secretRef": {"name": "dkim", "key": "s1.pem"}}]
    objects = read(sending_domain("d", "example.com", spec={"dkim": {"keys": keys, "rotation": {"everyDays": 90}}}))
    assert (
        "spec.dkim.rotation does nothing"
        in condition(status(objects, "SendingDomain", "d"), ConditionType.HONOURED)["message"]
    )


def test_second_pool_with_an_address_names_the_first() -> None:
    objects = read(ip_pool("first", "192.0.2.1", age=1), ip_pool("second", "192.0.2.1"), sender_pool("a", "s", "first"))
    found = status(objects, "IPPool", "second")
    assert short(found, ConditionType.ACCEPTED) == ("False", "AddressTaken")
    assert "IPPool first has 192.0.2.1" in condition(found, ConditionType.ACCEPTED)["message"]
    assert [(one["address"], one["state"]) for one in found["addresses"]] == [("192.0.2.1", "Taken")]
    assert found["usable"] == "0/1"
    assert status(objects, "IPPool", "first")["addresses"][0]["leasedTo"] == "a"


def test_a_drained_address_is_not_counted_as_usable() -> None:
    pool = ip_pool("i", "192.0.2.1", "192.0.2.2")
    pool["spec"]["addresses"][0]["weight"] = 0
    found = status(read(pool, sender_pool("a", "s", "i")), "IPPool", "i")
    assert found["usable"] == "1/2"
    assert [one["state"] for one in found["addresses"]] == ["Active", "Active"]


def test_pool_in_use_is_not_deleted_and_says_why() -> None:
    objects = read(ip_pool("i", "192.0.2.1", deleting=True), sender_pool("a", "s", "i"))
    found = status(objects, "IPPool", "i")
    assert short(found, ConditionType.RELEASED) == ("False", "InUse")
    assert "a; delete them, or name another IPPool" in condition(found, ConditionType.RELEASED)["message"]
    assert short(status(read(ip_pool("i", "192.0.2.1", deleting=True)), "IPPool", "i"), ConditionType.RELEASED) == (
        "True",
        "Unused",
    )


def test_pool_whose_addresses_drain_is_not_deleted() -> None:
    held = {
        "addresses": [{"address": "192.0.2.1", "ehlo": "x.example", "state": "Active", "leasedTo": "a"}],
        "usedBy": "a",
    }
    objects = read(
        ip_pool("i", "192.0.2.1", deleting=True, status=held), ip_pool("j", "192.0.2.2"), sender_pool("a", "s", "j")
    )
    found = status(objects, "IPPool", "i")
    assert short(found, ConditionType.RELEASED) == ("False", "MailQueued")
    assert "192.0.2.1 (a)" in condition(found, ConditionType.RELEASED)["message"]


@pytest.mark.parametrize(
    ("more", "annotations", "queued", "expected"),
    [
        ((submitter("shop", "s"),), {}, {"a": 0}, ("False", "InUse")),
        ((), {}, {"a": 3}, ("False", "MailQueued")),
        ((), {}, {}, ("False", "UnknownQueue")),
        ((), {"postrail.io/abandon-queue": "true"}, {}, ("True", "Unused")),
        ((), {}, {"a": 0}, ("True", "Unused")),
    ],
)
def test_sender_pool_goes_when_nothing_needs_it(
    more: Any, annotations: Any, queued: Any, expected: tuple[str, str]
) -> None:
    pool = sender_pool("a", "s", "i", deleting=True, annotations=annotations)
    objects = read(ip_pool("i", "192.0.2.1"), pool, *more)
    found = status(objects, "SenderPool", "a", Seen(queued=queued))
    assert short(found, ConditionType.RELEASED) == expected


def test_quarantine_is_said_at_the_address() -> None:
    objects = read(ip_pool("i", "192.0.2.1", annotations={"postrail.io/quarantine": "192.0.2.1"}), POOLS[1])
    (address,) = status(objects, "IPPool", "i")["addresses"]
    assert address["state"] == "Quarantined"
    assert short(address, ConditionType.QUARANTINED) == ("True", "ByAnnotation")
    assert short(address, ConditionType.PTR_VALID) == ("Unknown", "NotChecked")


def test_senders_are_counted_and_caps_are_said() -> None:
    objects = read(POOLS[0], sender_pool("a", "s", "i", spec={"replicas": 5}))
    seen = Seen(senders={"a": [SenderState("postrail-sender-a-others", "", 2, 1, 2)]}, loads={"a": Load(70, 12.4, 0.5)})
    found = status(objects, "SenderPool", "a", seen)
    assert (found["replicas"], found["readyReplicas"], found["eligibleDeliveries"]) == (2, 1, 70)
    assert found["pods"] == "1/2"
    assert (found["oldestAgeSeconds"], found["limitsUsedPercent"]) == (12, 50)
    assert short(found, ConditionType.SCALED) == ("False", "Capped")
    assert "postrail-sender-a-others gets 2" in condition(found, ConditionType.SCALED)["message"]
    assert short(found, ConditionType.READY) == ("False", "Pending")


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ({}, ("Unknown", "NoMetrics")),
        ({"a": Load(10, 1.0, 0.95)}, ("True", "LimitsReached")),
        ({"a": Load(10, 1.0, 0.2)}, ("True", "AsAsked")),
    ],
)
def test_autoscaling_says_what_holds_it(loads: Any, expected: tuple[str, str]) -> None:
    objects = read(POOLS[0], sender_pool("a", "s", "i", spec={"autoscaling": {}}))
    assert short(status(objects, "SenderPool", "a", Seen(loads=loads)), ConditionType.SCALED) == expected


def test_suspended_pool_says_so() -> None:
    objects = read(POOLS[0], sender_pool("a", "s", "i", spec={"suspend": True}))
    assert short(status(objects, "SenderPool", "a"), ConditionType.READY) == ("False", "Suspended")


def test_domain_lists_the_records_to_publish() -> None:
    found = status(read(*POOLS, sending_domain("d", "example.com")), "SendingDomain", "d")
    records = {one["name"]: one["value"] for one in found["records"]}
    assert records["s1._domainkey.example.com"].startswith("v=DKIM1; k=ed25519; p=")
    assert records["example.com"] == "v=spf1 ip4:192.0.2.1 -all"
    assert "_dmarc.example.com" in records
    assert found["activeSelectors"] == ["s1"]
    assert found["signsWith"] == "s1"
    assert found["verified"] == "0/3"


def test_a_suspended_destination_says_so() -> None:
    gmail = body("Destination", "gmail", {"limits": {"suspend": True}})
    objects = read(gmail, sender_pool("a", "s", "i"), ip_pool("i", "192.0.2.1"))
    assert short(status(objects, "Destination", "gmail"), ConditionType.READY) == ("False", "Suspended")
    made = compose(BASE, objects)
    assert made.config is not None
    assert made.config["delivery"]["provider_limits"]["gmail"] == {"suspend": True}


def test_destination_tells_its_group() -> None:
    sites = (
        body("Destination", "gmail", {}),
        body("Destination", "acme", {"domains": ["a.example"], "group": "partners"}),
    )
    objects = read(*sites, body("Destination", "default", {}))
    groups = {name: status(objects, "Destination", name)["group"] for name in ("gmail", "acme", "default")}
    assert groups == {"gmail": "gmail", "acme": "partners", "default": "default"}


def test_event_tells_what_changed() -> None:
    objects = read(sender_pool("a", "s", "none"))
    (item,) = objects.every
    ((kind, reason, message),) = events_of(item, status(objects, "SenderPool", "a"))
    assert (kind, reason) == ("Warning", "IPPoolMissing")
    assert "there is no IPPool none" in message


def test_bad_spec_is_told_field_by_field() -> None:
    objects = read(body("SenderPool", "a", {"stream": "S", "replicas": -1}))
    found = status(objects, "SenderPool", "a")
    message = condition(found, ConditionType.ACCEPTED)["message"]
    assert short(found, ConditionType.ACCEPTED) == ("False", "InvalidSpec")
    assert all(field in message for field in ("spec.stream", "spec.ipPoolRef", "spec.replicas"))
