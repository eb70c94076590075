"""DMARC (RFC 9989): the record of a domain, the policy that applies to it, and whether two domains are aligned.

Owns the record's syntax and the DNS tree walk, which needs no list of public suffixes. It does no I/O: it yields questions and is
sent the answers. What the result means for us is judged in `postrail.core.domain_checks`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordKind

MAX_WALK = 8
"""Names that one walk asks for (§4.10)."""

_VERSION = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")


class BadRecord(ValueError):
    """The record is none, or says nothing that holds; the message says why."""


class Unanswered(Exception):
    """The DNS did not answer."""


class Policy(StrEnum):
    """What a domain asks receivers to do with mail that is not aligned."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class Psd(StrEnum):
    """Whether the domain is a public suffix."""

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A record at `domain`; of its tags those that matter for alignment and policy."""

    domain: str
    text: str
    policy: Policy
    subdomain_policy: Policy
    strict_dkim: bool = False
    strict_spf: bool = False
    psd: Psd = Psd.UNKNOWN


class Problem(NamedTuple):
    """Why what stands at a `_dmarc` name does not count. `several`: there is more than one record."""

    name: str
    several: bool
    text: str


@dataclass(frozen=True, slots=True)
class Walk:
    """What a tree walk from a domain found.

    Attributes:
        organisation: the Organizational Domain (§4.10.2); the domain itself where nothing is published.
        record: the one that applies to the domain; None: none does.
        problems: what stands on the way and does not count.
    """

    domain: str
    organisation: str
    record: DmarcRecord | None
    problems: tuple[Problem, ...] = ()

    @property
    def policy(self) -> Policy | None:
        """What applies to the domain."""
        if self.record is None:
            return None
        return self.record.policy if self.record.domain == self.domain else self.record.subdomain_policy


def choose(texts: Iterable[str]) -> list[str]:
    """Those of the TXT records at a `_dmarc` name that are DMARC records; where there are several, none counts."""
    return [text for text in texts if _VERSION.match(text)]


def parse_record(domain: str, text: str) -> DmarcRecord:
    """What a record says; unknown tags are passed over.

    Raises:
        BadRecord: it has no policy, or a tag that cannot be read.
    """
    tags: dict[str, str] = {}
    for part in text.split(";"):
        if part.strip():
            name, equals, value = part.partition("=")
            if not equals:
                raise BadRecord(f"{part.strip()!r} is no tag of the form name=value")
            tags.setdefault(name.strip().lower(), value.strip())
    policy = _policy(tags.get("p", ""))
    if policy is None:
        if "mailto:" not in tags.get("rua", ""):
            raise BadRecord(f"p={tags.get('p', '')} is none of none, quarantine, reject")
        policy = Policy.NONE
    psd = tags.get("psd", "u").lower()
    return DmarcRecord(
        domain,
        text,
        policy,
        _policy(tags.get("sp", "")) or policy,
        strict_dkim=tags.get("adkim", "r").lower() == "s",
        strict_spf=tags.get("aspf", "r").lower() == "s",
        psd=Psd(psd) if psd in ("y", "n") else Psd.UNKNOWN,
    )


def walk(domain: str) -> Asking[Walk]:
    """Look for records at the domain and above (§4.10).

    Args:
        domain: in A-labels, lower case.

    Raises:
        Unanswered: a question on the way got no answer.
    """
    found: list[DmarcRecord] = []
    problems: list[Problem] = []
    for name in _names(domain):
        answer = yield Question(RecordKind.TXT, f"_dmarc.{name}")
        if answer.status is DnsStatus.FAILED:
            raise Unanswered(answer.detail)
        texts = choose(answer.values)
        if len(texts) > 1:
            text = f"_dmarc.{name} has {len(texts)} DMARC records, so that none counts"
            problems.append(Problem(f"_dmarc.{name}", several=True, text=text))
        elif texts:
            try:
                found.append(parse_record(name, texts[0]))
            except BadRecord as error:
                problems.append(Problem(f"_dmarc.{name}", several=False, text=f"_dmarc.{name}: {error}"))
                continue
            if found[-1].psd is not Psd.UNKNOWN:
                break
    organisation = _organisation(domain, found)
    record = next((one for one in found if one.domain == domain), None)
    if record is None:
        record = next((one for one in found if one.domain == organisation), None)
    if record is None:
        record = next((one for one in found if one.psd is Psd.YES), None)
    return Walk(domain, organisation, record, tuple(problems))


def aligned(author: Walk, other: Walk, *, strict: bool) -> bool:
    """Whether an authenticated domain stands for the author's (§4.4): the same one, or, where not strict, of one organisation."""
    return author.domain == other.domain or (not strict and author.organisation == other.organisation)


def _names(domain: str) -> list[str]:
    labels = domain.split(".")
    names = [domain]
    start = 1 if len(labels) <= MAX_WALK else len(labels) - MAX_WALK + 1
    names += [".".join(labels[position:]) for position in range(start, len(labels))]
    return names[:MAX_WALK]


def _organisation(domain: str, found: list[DmarcRecord]) -> str:
    for record in found:
        if record.psd is Psd.NO:
            return record.domain
        if record.psd is Psd.YES and record.domain != domain:
            below = domain.removesuffix(f".{record.domain}").rpartition(".")[2]
            return f"{below}.{record.domain}"
    return found[-1].domain if found else domain


def _policy(text: str) -> Policy | None:
    try:
        return Policy(text.lower())
    except ValueError:
        return None
