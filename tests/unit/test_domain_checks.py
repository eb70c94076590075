"""DKIM, SPF and DMARC of a sending domain: what is judged, why, and what to publish."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from postrail.core import dkim_record
from postrail.core.checks import CheckResult, DnsRecord, Reason, Verdict
from postrail.core.dns_answers import DnsStatus
from postrail.core.domain_checks import check_dkim, check_dmarc, check_spf
from tests.support.decisions import Table, decide

KEY = dkim_record.PublicKey("ed25519", bytes(32))
DKIM_NAME = "TXT s1._domainkey.example.com"
ADDRESS = ip_address("192.0.2.1")


def ended(result: CheckResult) -> tuple[Verdict, Reason]:
    return result.verdict, result.reason


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ([dkim_record.value(KEY)], Verdict.PASSED, Reason.VERIFIED),
        (DnsStatus.NXDOMAIN, Verdict.FAILED, Reason.RECORD_MISSING),
        (DnsStatus.NO_DATA, Verdict.FAILED, Reason.RECORD_MISSING),
        (DnsStatus.FAILED, Verdict.UNKNOWN, Reason.DNS_FAILED),
        ([dkim_record.value(KEY)] * 2, Verdict.FAILED, Reason.SEVERAL_RECORDS),
        (["v=DKIM1; k=ed25519; p="], Verdict.FAILED, Reason.KEY_REVOKED),
        (["v=DKIM1; k=ed25519"], Verdict.FAILED, Reason.RECORD_INVALID),
        (["v=DKIM1; k=ed25519; p=AAAA"], Verdict.FAILED, Reason.OTHER_KEY),
    ],
)
def test_dkim(answer: list[str] | DnsStatus, verdict: Verdict, reason: Reason) -> None:
    result = decide(check_dkim("example.com", "s1", KEY), {DKIM_NAME: answer})
    assert ended(result) == (verdict, reason)
    assert result.found
    if verdict is Verdict.FAILED:
        assert result.record == DnsRecord("s1._domainkey.example.com", "TXT", dkim_record.value(KEY))
        assert result.advice


@pytest.mark.parametrize(
    ("record", "verdict", "reason", "publish"),
    [
        ("v=spf1 ip4:192.0.2.0/28 -all", Verdict.PASSED, Reason.VERIFIED, ""),
        ("v=spf1 -all", Verdict.FAILED, Reason.NOT_AUTHORIZED, "v=spf1 ip4:192.0.2.1 -all"),
        ("v=spf1 ?all", Verdict.FAILED, Reason.NOT_AUTHORIZED, "v=spf1 ip4:192.0.2.1 ?all"),
        ("v=spf1", Verdict.FAILED, Reason.NOT_AUTHORIZED, "v=spf1 ip4:192.0.2.1 ~all"),
        ("v=spf1 ipv4:192.0.2.1", Verdict.FAILED, Reason.RECORD_INVALID, ""),
        ("no record", Verdict.FAILED, Reason.RECORD_MISSING, "v=spf1 ip4:192.0.2.1 ~all"),
        ("v=spf1 a:broken.example -all", Verdict.UNKNOWN, Reason.DNS_FAILED, ""),
        ("v=spf1 redirect=other.example", Verdict.PASSED, Reason.VERIFIED, ""),
        ("v=spf1 include:absent.example -all", Verdict.FAILED, Reason.RECORD_INVALID, ""),
        ("v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all", Verdict.PASSED, Reason.VERIFIED, ""),
    ],
)
def test_spf(record: str, verdict: Verdict, reason: Reason, publish: str) -> None:
    table: Table = {
        "TXT bounce.example.com": [record],
        "A broken.example": DnsStatus.FAILED,
        "TXT other.example": ["v=spf1 ip4:192.0.2.1 -all"],
        "A 1.2.0.192.in-addr._spf.example.com": ["127.0.0.2"],
    }
    result = decide(check_spf("bounce.example.com", ADDRESS, "out.example.com"), table)
    assert ended(result) == (verdict, reason)
    assert (result.record.value if result.record else "") == publish
    assert bool(result.advice) == (verdict is not Verdict.PASSED)


def test_spf_of_ipv6() -> None:
    table = {"TXT example.com": ["v=spf1 ip6:2001:db8::/32 -all"]}
    assert decide(check_spf("example.com", ip_address("2001:db8::1"), "out"), table).verdict is Verdict.PASSED
    failed = decide(check_spf("example.com", ip_address("2001:db9::1"), "out"), table)
    assert failed.record == DnsRecord("example.com", "TXT", "v=spf1 ip6:2001:db9::1 ip6:2001:db8::/32 -all")


def test_spf_stops_at_ten_look_ups() -> None:
    includes = {f"TXT i{n}.example": [f"v=spf1 include:i{n + 1}.example"] for n in range(12)}
    result = decide(check_spf("i0.example", ADDRESS, "out"), includes)
    assert ended(result) == (Verdict.FAILED, Reason.RECORD_INVALID)
    assert "more than 10 look-ups" in result.found


def test_spf_stops_at_three_look_ups_that_find_nothing() -> None:
    table = {"TXT example.com": ["v=spf1 a:x.example a:y.example a:z.example ip4:192.0.2.1 -all"]}
    assert "more than 2 of its look-ups find nothing" in decide(check_spf("example.com", ADDRESS, "out"), table).found


OBSERVED = ["v=DMARC1; p=none; rua=mailto:d@example.com"]
REJECTED = ["v=DMARC1; p=reject; sp=quarantine; adkim=s; aspf=s"]


@pytest.mark.parametrize(
    ("table", "reason", "found"),
    [
        ({"TXT _dmarc.example.com": OBSERVED}, Reason.VERIFIED, "policy none from _dmarc.example.com"),
        ({"TXT _dmarc.example.com": REJECTED}, Reason.VERIFIED, "aligned by DKIM (example.com)"),
        ({}, Reason.RECORD_MISSING, "neither _dmarc.example.com nor a domain above"),
        ({"TXT _dmarc.example.com": ["unrelated"]}, Reason.RECORD_MISSING, "neither"),
        ({"TXT _dmarc.example.com": OBSERVED * 2}, Reason.SEVERAL_RECORDS, "2 DMARC records"),
        ({"TXT _dmarc.example.com": ["v=DMARC1; p=all"]}, Reason.RECORD_INVALID, "p=all"),
        ({"TXT _dmarc.example.com": ["v=DMARC1; p"]}, Reason.RECORD_INVALID, "'p' is no tag"),
        ({"TXT _dmarc.example.com": ["v=DMARC1; rua=mailto:d@example.com"]}, Reason.VERIFIED, "policy none"),
    ],
)
def test_dmarc(table: Table, reason: Reason, found: str) -> None:
    result = decide(check_dmarc("example.com", "bounce.example.com", ["example.com"]), table)
    assert result.reason is reason
    assert (result.verdict is Verdict.PASSED) == (reason is Reason.VERIFIED)
    assert found in result.found
    if result.verdict is Verdict.FAILED:
        assert result.record is not None
        assert result.record.name == "_dmarc.example.com"


@pytest.mark.parametrize(
    ("record", "return_path", "signers", "ways"),
    [
        (OBSERVED, "bounce.example.com", ["mail.example.com"], "DKIM (mail.example.com) and SPF (bounce.example.com)"),
        (OBSERVED, "bounce.example.com", ["esp.example"], "SPF (bounce.example.com)"),
        (OBSERVED, "", ["example.com"], "DKIM (example.com)"),
        (REJECTED, "bounce.example.com", ["mail.example.com"], ""),
        (REJECTED, "example.com", [], "SPF (example.com)"),
        (OBSERVED, "esp.example", ["esp.example"], ""),
        (OBSERVED, "", [], ""),
    ],
)
def test_alignment(record: list[str], return_path: str, signers: list[str], ways: str) -> None:
    result = decide(check_dmarc("example.com", return_path, signers), {"TXT _dmarc.example.com": record})
    assert result.reason is (Reason.VERIFIED if ways else Reason.NOT_ALIGNED)
    assert result.found.endswith(f"aligned by {ways}" if ways else ")")


def test_policy_of_a_subdomain_comes_from_above() -> None:
    table = {"TXT _dmarc.example.com": REJECTED}
    result = decide(check_dmarc("news.shop.example.com", "", ["news.shop.example.com"]), table)
    assert result.verdict is Verdict.PASSED
    assert "policy quarantine from _dmarc.example.com" in result.found


def test_a_public_suffix_is_no_organisation() -> None:
    table = {"TXT _dmarc.example": ["v=DMARC1; p=reject; psd=y"]}
    assert decide(check_dmarc("a.example", "", ["b.example"]), table).reason is Reason.NOT_ALIGNED
    assert decide(check_dmarc("a.example", "", ["m.a.example"]), table).verdict is Verdict.PASSED


def test_an_organisation_may_end_below_its_parent() -> None:
    table = {
        "TXT _dmarc.customer.example.com": ["v=DMARC1; p=none; psd=n"],
        "TXT _dmarc.example.com": ["v=DMARC1; p=reject"],
    }
    assert decide(check_dmarc("customer.example.com", "", ["example.com"]), table).reason is Reason.NOT_ALIGNED


def test_a_long_name_is_asked_for_eight_times() -> None:
    asked = check_dmarc("a.b.c.d.e.f.g.h.i.j.example.com", "", [])
    table = {"TXT _dmarc.f.g.h.i.j.example.com": OBSERVED}
    assert "policy none from _dmarc.f.g.h.i.j.example.com" in decide(asked, table).found
    hidden = {"TXT _dmarc.e.f.g.h.i.j.example.com": OBSERVED}
    assert decide(check_dmarc("a.b.c.d.e.f.g.h.i.j.example.com", "", []), hidden).reason is Reason.RECORD_MISSING


@pytest.mark.parametrize("silent", ["_dmarc.example.com", "_dmarc.com", "_dmarc.bounce.example.com"])
def test_dmarc_is_unknown_where_the_dns_is_silent(silent: str) -> None:
    table: Table = {"TXT _dmarc.example.com": OBSERVED, f"TXT {silent}": DnsStatus.FAILED}
    result = decide(check_dmarc("example.com", "bounce.example.com", ["example.com"]), table)
    assert ended(result) == (Verdict.UNKNOWN, Reason.DNS_FAILED)
