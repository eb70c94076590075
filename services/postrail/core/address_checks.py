"""Checks of a source address: its name in the DNS, block lists, whether this machine has it.

Owns the judgement. It does no I/O: where the DNS must be asked, it yields questions and is sent the answers. Neighbours:
`postrail.shell.checks.address` asks; `domain_checks` is about domains.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from postrail.core.checks import Check, CheckResult, DnsRecord, Reason, Verdict, dns_failed
from postrail.core.checks_config import BlockListConfig
from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordKind

REFUSALS = IPv4Network("127.255.255.0/24")
"""What lists answer to those whom they do not serve: 252 a typing error, 254 a public resolver, 255 too many questions."""
LOOPBACK = IPv4Network("127.0.0.0/8")

MAX_NAMES = 10
"""Names of one address that are looked at."""


class Listing(StrEnum):
    """What one block list says."""

    LISTED = "listed"
    CLEAR = "clear"
    OTHER = "other"
    """It has the address for a reason that the configuration does not count."""
    REFUSED = "refused"
    STRANGE = "strange"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """One list's answer; `detail` is for a person."""

    zone: str
    listing: Listing
    detail: str


def check_ptr(address: IPv4Address | IPv6Address, ehlo: str) -> Asking[CheckResult]:
    """Whether the address has the name that is said in EHLO, and the name has the address (RFC 1912 §2.1)."""
    subject = str(address)
    kind = RecordKind.A if address.version == 4 else RecordKind.AAAA
    reverse = DnsRecord(address.reverse_pointer, "PTR", ehlo)
    forward = DnsRecord(ehlo, kind, subject)

    def failed(reason: Reason, found: str, advice: str, record: DnsRecord) -> CheckResult:
        return CheckResult(Check.PTR, subject, Verdict.FAILED, reason, found, advice, record)

    answer = yield Question(RecordKind.PTR, address.reverse_pointer)
    if answer.status is DnsStatus.FAILED:
        return dns_failed(Check.PTR, subject, answer.detail)
    names = answer.values[:MAX_NAMES]
    if not names:
        advice = "whoever owns the network (your provider) must publish the name, or delegate the reverse zone to you"
        return failed(Reason.RECORD_MISSING, f"{address.reverse_pointer} has no PTR record", advice, reverse)
    if ehlo not in names:
        advice = (
            f"have the PTR record changed to {ehlo}, or set the source's ehlo to {names[0]} if that has the address"
        )
        return failed(Reason.OTHER_NAME, f"its name is {', '.join(names)}, but EHLO says {ehlo}", advice, reverse)
    addresses = yield Question(kind, ehlo)
    if addresses.status is DnsStatus.FAILED:
        return dns_failed(Check.PTR, subject, addresses.detail)
    if address not in map(ip_address, addresses.values):
        found = f"its name is {ehlo}, which has {', '.join(addresses.values) or f'no {kind} record'}"
        return failed(Reason.NOT_FORWARD_CONFIRMED, found, f"add the {kind} record", forward)
    return CheckResult(Check.PTR, subject, Verdict.PASSED, Reason.VERIFIED, f"its name is {ehlo}, which has it")


def ask_list(address: IPv4Address | IPv6Address, block_list: BlockListConfig) -> Asking[ListAnswer]:
    """What one list says of the address (RFC 5782 §2.1, §2.4)."""
    zone = block_list.zone
    name = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa") + f".{zone}"
    answer = yield Question(RecordKind.A, name)
    if answer.status is DnsStatus.FAILED:
        return ListAnswer(zone, Listing.FAILED, answer.detail)
    if answer.is_void:
        return ListAnswer(zone, Listing.CLEAR, "not listed")
    codes = [IPv4Address(value) for value in answer.values]
    said = ", ".join(map(str, codes))
    if any(code in REFUSALS for code in codes):
        return ListAnswer(zone, Listing.REFUSED, f"it answers {said}, which says that it does not answer this resolver")
    if any(code not in LOOPBACK for code in codes):
        return ListAnswer(zone, Listing.STRANGE, f"it answers {said}, which no block list does")
    counted = [IPv4Network(network) for network in block_list.codes]
    if not any(code in network for code in codes for network in counted):
        return ListAnswer(zone, Listing.OTHER, f"{said}, which the configuration does not count")
    texts = yield Question(RecordKind.TXT, name)
    return ListAnswer(zone, Listing.LISTED, f"{said} {' '.join(texts.values)}".strip())


def judge_lists(address: IPv4Address | IPv6Address, answers: Sequence[ListAnswer]) -> CheckResult:
    """All lists together: one listing is enough to fail; without one, each must have answered to pass."""
    subject = str(address)

    def ended(verdict: Verdict, reason: Reason, listings: Sequence[Listing], advice: str = "") -> CheckResult:
        found = "; ".join(f"{one.zone}: {one.detail}" for one in answers if one.listing in listings)
        return CheckResult(Check.BLOCK_LISTS, subject, verdict, reason, found, advice)

    if not answers:
        advice = "name the lists to ask under checks.block_lists"
        found = "no list is configured"
        return CheckResult(Check.BLOCK_LISTS, subject, Verdict.UNKNOWN, Reason.NO_BLOCK_LISTS, found, advice)
    present = {answer.listing for answer in answers}
    if Listing.LISTED in present:
        advice = "find out why (complaints, spam traps), stop that mail, then ask the list for removal"
        return ended(Verdict.FAILED, Reason.LISTED, [Listing.LISTED], advice)
    if Listing.REFUSED in present:
        advice = "ask through a resolver of your own, or with the list's key in the zone's name"
        return ended(Verdict.UNKNOWN, Reason.QUERY_REFUSED, [Listing.REFUSED], advice)
    if Listing.STRANGE in present:
        advice = (
            "the zone is no block list (any more), or the resolver makes answers up: take it out of checks.block_lists"
        )
        return ended(Verdict.UNKNOWN, Reason.UNEXPECTED_ANSWER, [Listing.STRANGE], advice)
    if Listing.FAILED in present:
        return ended(Verdict.UNKNOWN, Reason.DNS_FAILED, [Listing.FAILED], "look at the resolver, or take the list out")
    return ended(Verdict.PASSED, Reason.VERIFIED, [Listing.CLEAR, Listing.OTHER])


def judge_bound(address: IPv4Address | IPv6Address, error: OSError | None) -> CheckResult:
    """What a trial to bind the address says; `error` is None where that worked."""
    subject = str(address)
    if error is None:
        return CheckResult(Check.BOUND, subject, Verdict.PASSED, Reason.VERIFIED, "this machine has the address")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        advice = "add the address to an interface of this machine, or let a machine that has it send (bind: socks5)"
        reason = Reason.NOT_ON_THIS_MACHINE
        return CheckResult(Check.BOUND, subject, Verdict.FAILED, reason, f"{error.strerror}", advice)
    found = f"the address could not be tried: {error.strerror or error}"
    return CheckResult(Check.BOUND, subject, Verdict.UNKNOWN, Reason.CANNOT_TELL, found)
