"""What a check of a domain or an address found: the shape of its result, and its reasons, which are constants.

Owns no judgement: `domain_checks` and `address_checks` make the results, `postrail.shell.checks` does the asking. Alerts and
conditions match on reasons; `found` and `advice` are for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Nobody could tell: the DNS did not answer, or not in a way that means anything. Never a reason to act."""


class Check(StrEnum):
    """What was checked."""

    DKIM = "dkim"
    """The key that DNS publishes is the one that we sign with."""
    SPF = "spf"
    """The domain's record allows the address."""
    DMARC = "dmarc"
    """A policy is published, and our mail satisfies it."""
    PTR = "ptr"
    """The address has the name that it says in EHLO, and the name has the address."""
    BLOCK_LISTS = "block-lists"
    """No list has the address."""
    BOUND = "bound"
    """The address can be bound on this machine."""


class Reason(StrEnum):
    VERIFIED = "Verified"
    DNS_FAILED = "DNSFailed"
    """SERVFAIL, REFUSED or a time-out."""
    RECORD_MISSING = "RecordMissing"
    RECORD_INVALID = "RecordInvalid"
    SEVERAL_RECORDS = "SeveralRecords"
    KEY_REVOKED = "KeyRevoked"
    OTHER_KEY = "OtherKey"
    NOT_AUTHORIZED = "NotAuthorized"
    NOT_ALIGNED = "NotAligned"
    OTHER_NAME = "OtherName"
    """The address has a name, and another one is said in EHLO."""
    NOT_FORWARD_CONFIRMED = "NotForwardConfirmed"
    """The name does not have the address."""
    LISTED = "Listed"
    QUERY_REFUSED = "QueryRefused"
    """A block list answered that it does not answer us."""
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    """A block list answered what no block list answers."""
    NO_BLOCK_LISTS = "NoBlockLists"
    """None is configured."""
    NOT_ON_THIS_MACHINE = "NotOnThisMachine"
    CANNOT_TELL = "CannotTell"


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to publish; names without a final dot."""

    name: str
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.name} {self.kind} {self.value}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended.

    Attributes:
        subject: the name or address that was looked at.
        found: what is there, or what was answered.
        advice: the step to take; "" where there is nothing to do.
        record: what to publish for it, where that is a record.
    """

    check: Check
    subject: str
    verdict: Verdict
    reason: Reason
    found: str
    advice: str = ""
    record: DnsRecord | None = None

    def __str__(self) -> str:
        text = f"{self.check} of {self.subject}: {self.verdict} ({self.reason}): {self.found}"
        if self.advice:
            text += f"; {self.advice}"
        return text if self.record is None else f"{text}; publish {self.record}"


def dns_failed(check: Check, subject: str, detail: str) -> CheckResult:
    """The result where the DNS gave no answer."""
    advice = "look at the name servers of the zone, and at the resolver (routing.dns.nameservers)"
    return CheckResult(check, subject, Verdict.UNKNOWN, Reason.DNS_FAILED, detail, advice)
