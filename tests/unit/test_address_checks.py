"""Name, block lists and place of a source address: what is judged, why, and what to do."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import Any

import pytest

from postrail.core.address_checks import Listing, ask_list, check_ptr, judge_bound, judge_lists
from postrail.core.checks import DnsRecord, Reason, Verdict
from postrail.core.checks_config import BlockListConfig
from postrail.core.dns_answers import DnsStatus
from tests.support.decisions import Table, decide

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
REVERSE = "1.2.0.192.in-addr.arpa"
EHLO = "out.example.com"


@pytest.mark.parametrize(
    ("table", "verdict", "reason", "record"),
    [
        ({f"PTR {REVERSE}": [EHLO], f"A {EHLO}": ["192.0.2.9", "192.0.2.1"]}, Verdict.PASSED, Reason.VERIFIED, None),
        ({}, Verdict.FAILED, Reason.RECORD_MISSING, DnsRecord(REVERSE, "PTR", EHLO)),
        ({f"PTR {REVERSE}": ["host1.example.net"]}, Verdict.FAILED, Reason.OTHER_NAME, DnsRecord(REVERSE, "PTR", EHLO)),
        (
            {f"PTR {REVERSE}": [EHLO], f"A {EHLO}": ["192.0.2.9"]},
            Verdict.FAILED,
            Reason.NOT_FORWARD_CONFIRMED,
            DnsRecord(EHLO, "A", "192.0.2.1"),
        ),
        ({f"PTR {REVERSE}": [EHLO]}, Verdict.FAILED, Reason.NOT_FORWARD_CONFIRMED, DnsRecord(EHLO, "A", "192.0.2.1")),
        ({f"PTR {REVERSE}": DnsStatus.FAILED}, Verdict.UNKNOWN, Reason.DNS_FAILED, None),
        ({f"PTR {REVERSE}": [EHLO], f"A {EHLO}": DnsStatus.FAILED}, Verdict.UNKNOWN, Reason.DNS_FAILED, None),
    ],
)
def test_ptr(table: Table, verdict: Verdict, reason: Reason, record: DnsRecord | None) -> None:
    result = decide(check_ptr(V4, EHLO), table)
    assert (result.verdict, result.reason, result.record) == (verdict, reason, record)
    assert bool(result.advice) == (verdict is not Verdict.PASSED)


def test_ptr_of_ipv6_wants_an_aaaa_record() -> None:
    table = {f"PTR {V6.reverse_pointer}": [EHLO], f"A {EHLO}": ["192.0.2.1"]}
    assert decide(check_ptr(V6, EHLO), table).record == DnsRecord(EHLO, "AAAA", "2001:db8::1")


@pytest.mark.parametrize(
    ("codes", "listing"),
    [
        (["127.0.0.2"], Listing.LISTED),
        (["127.0.0.10", "127.0.0.2"], Listing.LISTED),
        (["127.0.0.10"], Listing.OTHER),
        (["127.255.255.254"], Listing.REFUSED),
        (["127.0.0.2", "127.255.255.255"], Listing.REFUSED),
        (["203.0.113.80"], Listing.STRANGE),
        (DnsStatus.NXDOMAIN, Listing.CLEAR),
        (DnsStatus.NO_DATA, Listing.CLEAR),
        (DnsStatus.FAILED, Listing.FAILED),
    ],
)
def test_what_a_list_says(codes: Any, listing: Listing) -> None:
    block_list = BlockListConfig(zone="bl.example.", codes=("127.0.0.2/31",))
    for address, name in ((V4, "1.2.0.192.bl.example"), (V6, V6.reverse_pointer[: -len("ip6.arpa")] + "bl.example")):
        answer = decide(ask_list(address, block_list), {f"A {name}": codes, f"TXT {name}": ["see https://bl.example"]})
        assert answer.listing is listing
        assert answer.detail
        assert ("see https://bl.example" in answer.detail) == (listing is Listing.LISTED)


@pytest.mark.parametrize(
    ("codes", "verdict", "reason"),
    [
        ([None, None], Verdict.PASSED, Reason.VERIFIED),
        (["127.0.0.2", None], Verdict.FAILED, Reason.LISTED),
        (["127.255.255.254", "127.0.0.2"], Verdict.FAILED, Reason.LISTED),
        (["127.255.255.254", None], Verdict.UNKNOWN, Reason.QUERY_REFUSED),
        (["203.0.113.80", None], Verdict.UNKNOWN, Reason.UNEXPECTED_ANSWER),
        ([DnsStatus.FAILED, None], Verdict.UNKNOWN, Reason.DNS_FAILED),
        ([], Verdict.UNKNOWN, Reason.NO_BLOCK_LISTS),
    ],
)
def test_all_lists_together(codes: list[str | DnsStatus | None], verdict: Verdict, reason: Reason) -> None:
    answers = []
    for number, code in enumerate(codes):
        zone = f"bl{number}.example"
        said = DnsStatus.NXDOMAIN if code is None else code if isinstance(code, DnsStatus) else [code]
        answers.append(decide(ask_list(V4, BlockListConfig(zone=zone)), {f"A 1.2.0.192.{zone}": said}))
    result = judge_lists(V4, answers)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert result.found
    assert bool(result.advice) == (verdict is not Verdict.PASSED)


def test_codes_are_of_the_loopback_network() -> None:
    with pytest.raises(ValueError, match=r"not within 127\.0\.0\.0/8"):
        BlockListConfig(zone="bl.example", codes=("192.0.2.0/24",))


@pytest.mark.parametrize(
    ("number", "verdict", "reason"),
    [
        (0, Verdict.PASSED, Reason.VERIFIED),
        (errno.EADDRNOTAVAIL, Verdict.FAILED, Reason.NOT_ON_THIS_MACHINE),
        (errno.EAFNOSUPPORT, Verdict.FAILED, Reason.NOT_ON_THIS_MACHINE),
        (errno.EMFILE, Verdict.UNKNOWN, Reason.CANNOT_TELL),
    ],
)
def test_bound(number: int, verdict: Verdict, reason: Reason) -> None:
    result = judge_bound(V4, OSError(number, "why") if number else None)
    assert (result.verdict, result.reason) == (verdict, reason)
