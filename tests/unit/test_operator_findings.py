"""What the checks and the senders' reports mean: each condition once in each of its states, with its reason and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from postrail.core import checks, conditions
from postrail.core.checks import Check, CheckResult, DnsRecord, Verdict
from postrail_operator.compose import compose
from postrail_operator.conditions import Seen
from postrail_operator.objects import Objects
from postrail_operator.reports import MISMATCH, PROXY, UNBOUND, Report
from postrail_operator.statuses import events_of, status_of
from postrail_operator.wanted import DkimCheck, ListedCheck, PtrCheck, SpfCheck, Wanted, wanted
from tests.support.kubernetes_objects import BASE, ip_pool, read, sender_pool, sending_domain, submitter

A, B = "192.0.2.1", "192.0.2.2"
NOW, LATER = "2026-11-22T12:00:00Z", "2026-11-22T12:05:00Z"
DIRECT = {"mode": "direct", "nodeSelector": {"mail": "yes"}}
OTHERS = (sender_pool("p", "s", "i"), sending_domain("d", "example.com"), submitter("shop", "s"))
OBJECTS = read(ip_pool("i", A, binding=DIRECT), *OTHERS)
PASSED = (Verdict.PASSED, checks.Reason.VERIFIED)
NO_DNS = (Verdict.UNKNOWN, checks.Reason.DNS_FAILED)


def result(one: Wanted, verdict: Verdict, reason: checks.Reason) -> CheckResult:
    subject = one.address if isinstance(one, PtrCheck | ListedCheck) else one.domain
    kind = {PtrCheck: Check.PTR, ListedCheck: Check.BLOCK_LISTS, SpfCheck: Check.SPF, DkimCheck: Check.DKIM}
    record = DnsRecord("name", "TXT", "value") if verdict is Verdict.FAILED else None
    return CheckResult(kind.get(type(one), Check.DMARC), subject, verdict, reason, f"found {reason}", "do this", record)


Found = tuple[Verdict, checks.Reason]


def answers(objects: Objects = OBJECTS, found: Mapping[str, Found | None] | None = None) -> dict[Wanted, CheckResult]:
    """Every check passed, but those given by the name of their class; None: nobody has looked yet."""
    made = compose(BASE, objects)
    told = {one: (found or {}).get(type(one).__name__, PASSED) for one in wanted(objects, made)}
    return {one: result(one, *what) for one, what in told.items() if what is not None}


def status(
    name: tuple[str, str],
    found: Mapping[Wanted, CheckResult] | None = None,
    reports: Sequence[Report] | None = None,
    objects: Objects = OBJECTS,
    now: str = NOW,
) -> dict[str, Any]:
    (item,) = (one for one in objects.every if one.key == name)
    seen = Seen(answers=found, reports=reports)
    return status_of(item, objects, compose(BASE, objects), seen, now)


def of_pool(*args: Any, **kwargs: Any) -> dict[str, tuple[str, str]]:
    """The conditions of the pool's first address."""
    entry = status(("IPPool", "i"), *args, **kwargs)["addresses"][0]
    return {one["type"]: (one["status"], one["reason"]) for one in entry["conditions"]}


def of_domain(*args: Any, **kwargs: Any) -> dict[str, tuple[str, str]]:
    found = status(("SendingDomain", "d"), *args, **kwargs)["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in found}


def test_conditions_know_every_reason_of_a_check() -> None:
    known = {reason.value for reason in conditions.Reason}
    assert {reason.value for reason in checks.Reason} - known == set()


def test_all_is_well() -> None:
    report = Report("pod", "node", "p", A, verified=True)
    assert of_pool(answers(), [report]) == {
        "Plumbed": ("True", "Verified"),
        "PTRValid": ("True", "Verified"),
        "SPFAuthorized": ("True", "Verified"),
        "SourceVerified": ("True", "Verified"),
        "Listed": ("False", "NotListed"),
        "Quarantined": ("False", "NotQuarantined"),
    }
    found = of_domain(answers())
    assert {found[kind] for kind in ("Verified", "DKIMPublished", "SPFAuthorized", "DMARCValid")} == {
        ("True", "Verified")
    }
    domain = status(("SendingDomain", "d"), answers())
    assert domain["verified"] == "3/3"
    assert {one["state"] for one in domain["records"]} == {"Published"}


@pytest.mark.parametrize(
    ("check", "reason", "condition", "truth"),
    [
        ("PtrCheck", checks.Reason.OTHER_NAME, "PTRValid", "False"),
        ("PtrCheck", checks.Reason.NOT_FORWARD_CONFIRMED, "PTRValid", "False"),
        ("ListedCheck", checks.Reason.LISTED, "Listed", "True"),
        ("SpfCheck", checks.Reason.NOT_AUTHORIZED, "SPFAuthorized", "False"),
    ],
)
def test_what_fails_is_said_at_the_address(check: str, reason: checks.Reason, condition: str, truth: str) -> None:
    assert of_pool(answers(found={check: (Verdict.FAILED, reason)}))[condition] == (truth, reason)


@pytest.mark.parametrize(
    ("check", "reason", "condition"),
    [
        ("DkimCheck", checks.Reason.OTHER_KEY, "DKIMPublished"),
        ("DkimCheck", checks.Reason.RECORD_MISSING, "DKIMPublished"),
        ("SpfCheck", checks.Reason.RECORD_MISSING, "SPFAuthorized"),
        ("DmarcCheck", checks.Reason.RECORD_MISSING, "DMARCValid"),
    ],
)
def test_what_fails_is_said_at_the_domain_and_its_record(check: str, reason: checks.Reason, condition: str) -> None:
    found = answers(found={check: (Verdict.FAILED, reason)})
    assert of_domain(found)[condition] == ("False", reason)
    assert of_domain(found)["Verified"] == ("False", reason)
    domain = status(("SendingDomain", "d"), found)
    assert domain["verified"] == "2/3"
    purpose = {"DKIMPublished": "DKIM", "SPFAuthorized": "SPF", "DMARCValid": "DMARC"}[condition]
    (record,) = (one for one in domain["records"] if one["purpose"] == purpose)
    assert record["state"] == ("Missing" if reason is checks.Reason.RECORD_MISSING else "Wrong")
    assert record["message"] == f"found {reason}; do this; publish name TXT value"


@pytest.mark.parametrize("check", ["PtrCheck", "ListedCheck", "SpfCheck"])
def test_silent_dns_makes_conditions_of_addresses_unknown(check: str) -> None:
    condition = {"PtrCheck": "PTRValid", "ListedCheck": "Listed", "SpfCheck": "SPFAuthorized"}[check]
    assert of_pool(answers(found={check: NO_DNS}))[condition] == ("Unknown", "DNSFailed")


@pytest.mark.parametrize("check", ["DkimCheck", "SpfCheck", "DmarcCheck"])
def test_silent_dns_makes_conditions_of_domains_unknown(check: str) -> None:
    assert of_domain(answers(found={check: NO_DNS}))["Verified"] == ("Unknown", "DNSFailed")


@pytest.mark.parametrize(
    ("problems", "plumbed", "source"),
    [
        ({UNBOUND}, ("False", "NotOnThisMachine"), ("Unknown", "NoConnection")),
        ({PROXY}, ("False", "ProxyFailed"), ("Unknown", "NoConnection")),
        ({MISMATCH}, ("True", "Verified"), ("False", "OtherSource")),
        (set(), ("True", "Verified"), ("Unknown", "NoConnection")),
    ],
)
def test_senders_tell_of_their_addresses(problems: set[str], plumbed: tuple[str, str], source: tuple[str, str]) -> None:
    found = of_pool(answers(), [Report("pod", "node", "p", A, frozenset(problems)), Report("pod", "node", "other", A)])
    assert (found["Plumbed"], found["SourceVerified"]) == (plumbed, source)


def test_one_sender_of_several_that_lacks_the_address_is_named() -> None:
    reports = [Report("a", "n1", "p", A, verified=True), Report("b", "n2", "p", A, frozenset({UNBOUND}))]
    (entry,) = status(("IPPool", "i"), answers(), reports)["addresses"]
    (plumbed,) = (one for one in entry["conditions"] if one["type"] == "Plumbed")
    assert plumbed["status"] == "False"
    assert plumbed["message"].startswith("b on n2 cannot bind it")


def test_nobody_tells() -> None:
    assert of_pool(answers(), [])["Plumbed"] == ("Unknown", "NoReport")
    assert of_pool(answers(), None)["Plumbed"] == ("Unknown", "NotChecked"), "no sender was asked yet"
    gateway = {"mode": "egressGateway", "gateway": {"nodeSelector": {"mail": "yes"}}}
    objects = read(ip_pool("i", A, binding=gateway), *OTHERS)
    assert of_pool(answers(objects), [], objects=objects)["SourceVerified"] == ("Unknown", "NotVerifiable")


def test_checks_that_are_switched_off_say_so() -> None:
    assert {found for kind, found in of_pool(None).items() if kind != "Quarantined"} == {("Unknown", "NotChecked")}
    assert of_domain(None)["Verified"] == ("Unknown", "NotChecked")


def test_what_was_known_stays_until_somebody_looks_again() -> None:
    before = status(
        ("IPPool", "i"),
        answers(found={"PtrCheck": (Verdict.FAILED, checks.Reason.OTHER_NAME)}),
        [Report("pod", "node", "p", A, verified=True)],
    )
    told = status(("SendingDomain", "d"), answers())
    objects = read(
        ip_pool("i", A, binding=DIRECT, status=before),
        OTHERS[0],
        sending_domain("d", "example.com", status=told),
        OTHERS[2],
    )
    after = status(("IPPool", "i"), {}, None, objects, LATER)
    assert after == before
    assert status(("SendingDomain", "d"), {}, None, objects, LATER) == told
    rolled = of_pool({}, [Report("pod2", "node", "p", A)], objects=objects)
    assert rolled["SourceVerified"] == ("True", "Verified"), "that senders were rolled makes no connection undone"


def test_what_was_known_of_another_name_does_not_count() -> None:
    before = status(("IPPool", "i"), answers(), [])
    renamed = {"addresses": [{"address": A, "ehlo": "new.example.com"}], "binding": DIRECT}
    objects = read(ip_pool("i", A, status=before, spec=renamed), *OTHERS)
    assert of_pool({}, [], objects=objects)["PTRValid"] == ("Unknown", "NotChecked")


def test_domains_of_an_address_are_those_of_the_submitters_of_its_pool() -> None:
    objects = read(
        ip_pool("i", A, age=3), ip_pool("j", B, age=2), sender_pool("p", "s", "i"), sender_pool("q", "t", "j"),
        sending_domain("d", "example.com"), sending_domain("e", "news.example.org"),
        submitter("shop", "s", spec={"domains": ["example.com", "other.example"]}),
        submitter("news", "t", spec={"domains": [".example.org"]}),
    )  # fmt: skip
    found = {(one.domain, one.address) for one in wanted(objects, compose(BASE, objects)) if isinstance(one, SpfCheck)}
    assert found == {("example.com", A), ("other.example", A), ("news.example.org", B)}


def test_domain_that_nobody_may_send_as_yet_is_looked_at_for_every_address() -> None:
    objects = read(ip_pool("i", A, B), sender_pool("p", "s", "i"), sending_domain("d", "example.com"))
    found = {(one.domain, one.address) for one in wanted(objects, compose(BASE, objects)) if isinstance(one, SpfCheck)}
    assert found == {("example.com", A), ("example.com", B)}


def test_address_without_a_domain_says_so() -> None:
    objects = read(ip_pool("i", A), sender_pool("p", "s", "i"))
    assert of_pool(answers(objects), [], objects=objects)["SPFAuthorized"] == ("Unknown", "NoDomains")


def test_event_tells_that_an_address_went_bad_and_is_well_again() -> None:
    well = status(("IPPool", "i"), answers(), [])
    listed = answers(found={"ListedCheck": (Verdict.FAILED, checks.Reason.LISTED)})
    objects = read(ip_pool("i", A, binding=DIRECT, status=well), *OTHERS)
    item = next(one for one in objects.every if one.key == ("IPPool", "i"))
    bad = status(("IPPool", "i"), listed, [], objects)
    assert events_of(item, bad) == [
        ("Warning", "Listed", f"{A}: Listed: found Listed; do this; publish name TXT value")
    ]
    objects = read(ip_pool("i", A, binding=DIRECT, status=bad), *OTHERS)
    item = next(one for one in objects.every if one.key == ("IPPool", "i"))
    assert events_of(item, bad) == []
    assert [event[:2] for event in events_of(item, status(("IPPool", "i"), answers(), [], objects))] == [
        ("Normal", "NotListed")
    ]


def test_submitter_and_destination_say_what_they_refer_to() -> None:
    objects = read(ip_pool("i", A), *OTHERS)
    submitting = status(("Submitter", "shop"), {}, None, objects)
    assert (submitting["senderPools"], submitting["ipPools"]) == (["p"], ["i"])
    assert ("Ready", "True") in {(one["type"], one["status"]) for one in submitting["conditions"]}


def test_submitter_without_its_secret_is_not_ready() -> None:
    found = status(("Submitter", "shop"), {}, None, read(ip_pool("i", A), *OTHERS, secrets={}))
    assert {(one["type"], one["status"], one["reason"]) for one in found["conditions"]} >= {
        ("Ready", "False", "SecretMissing"),
        ("Accepted", "False", "SecretMissing"),
    }
