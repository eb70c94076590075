"""Whether a domain's SPF record allows an address to send in its name: check_host() of RFC 7208.

Owns the evaluation and its limits. It does no I/O: it yields questions and is sent the answers (`postrail.shell.dns` has
`Resolver.decide`). Never judges what the result means for us: that is `postrail.core.domain_checks`. Explanations (exp=) are not
fetched. Neighbours: `spf_record` (syntax), `spf_macros`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from postrail.core import spf_macros
from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordAnswer, RecordKind
from postrail.core.spf_macros import MacroText
from postrail.core.spf_record import BadRecord, Directive, Mechanism, Qualifier, SpfRecord, choose, parse_record

MAX_LOOKUPS = 10
"""Terms that ask the DNS (§4.6.4)."""
MAX_VOID_LOOKUPS = 2
MAX_HOSTS = 10
"""Hosts of one `mx` or `ptr`."""

_LABEL = re.compile(r"[^.]{1,63}")


class SpfResult(StrEnum):
    """§2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_RESULTS = {
    Qualifier.PASS: SpfResult.PASS,
    Qualifier.FAIL: SpfResult.FAIL,
    Qualifier.SOFTFAIL: SpfResult.SOFTFAIL,
    Qualifier.NEUTRAL: SpfResult.NEUTRAL,
}


@dataclass(frozen=True, slots=True)
class SpfOutcome:
    """A result.

    Attributes:
        record: of the domain itself; "" where none was found.
        detail: for a person: the term that matched, or what is wrong.
        lookups: terms that asked the DNS, of 10 at most.
    """

    result: SpfResult
    record: str = ""
    detail: str = ""
    lookups: int = 0


class _Permanent(Exception):
    """permerror."""


class _Temporary(Exception):
    """temperror."""


class _NoRecord(Exception):
    """none."""


def check_host(address: IPv4Address | IPv6Address, domain: str, sender: str, helo: str) -> Asking[SpfOutcome]:
    """Evaluate the record of `domain` for mail that leaves from `address`.

    Args:
        sender: the reverse path, or `postmaster@HELO` where that is null.
        helo: the name that is said in EHLO.
    Source: RFC 7208 §4.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    evaluation = _Evaluation(address, sender, helo)
    record = ""
    result, detail = SpfResult.NONE, f"{domain} is no domain name that can have a record"
    try:
        if "." in domain.removesuffix(".") and _is_name(domain):
            record = yield from evaluation.record_of(domain)
            result, detail = yield from evaluation.evaluate(domain, record)
    except _NoRecord as reason:
        detail = str(reason)
    except _Temporary as reason:
        result, detail = SpfResult.TEMPERROR, str(reason)
    except (_Permanent, BadRecord) as reason:
        result, detail = SpfResult.PERMERROR, str(reason)
    return SpfOutcome(result, record, detail, evaluation.lookups)


class _Evaluation:
    """One check_host() with all that it includes: the limits hold for all together."""

    def __init__(self, address: IPv4Address | IPv6Address, sender: str, helo: str) -> None:
        self.lookups = 0
        self._voids = 0
        self._address = address
        self._kind = RecordKind.A if address.version == 4 else RecordKind.AAAA
        local, _, sender_domain = sender.rpartition("@")
        self._values = {
            "s": f"{local or 'postmaster'}@{sender_domain}",
            "l": local or "postmaster",
            "o": sender_domain,
            "i": spf_macros.dotted(address),
            "v": "in-addr" if address.version == 4 else "ip6",
            "h": helo,
        }

    def record_of(self, domain: str) -> Asking[str]:
        """The one SPF record."""
        answer = yield Question(RecordKind.TXT, domain)
        if answer.status is DnsStatus.FAILED:
            raise _Temporary(answer.detail)
        records = choose(answer.values)
        if not records:
            raise _NoRecord(f"{domain} has no SPF record")
        if len(records) > 1:
            raise _Permanent(f"{domain} has {len(records)} SPF records")
        return records[0]

    def evaluate(self, domain: str, text: str) -> Asking[tuple[SpfResult, str]]:
        """The result and what brought it about."""
        record: SpfRecord = parse_record(text)
        for directive in record.directives:
            if (yield from self._matches(directive, domain)):
                return _RESULTS[directive.qualifier], f"{directive.text} of {domain}"
        if record.redirect is None:
            return SpfResult.NEUTRAL, f"no mechanism of {domain} matches"
        self._count()
        target = yield from self._target(record.redirect, domain)
        try:
            redirected = yield from self.record_of(target)
        except _NoRecord as reason:
            raise _Permanent(f"redirect of {domain}: {reason}") from reason
        return (yield from self.evaluate(target, redirected))

    def _matches(self, directive: Directive, domain: str) -> Asking[bool]:
        mechanism = directive.mechanism
        if mechanism is Mechanism.ALL:
            return True
        if directive.network is not None:
            return self._address in directive.network
        self._count()
        target = domain if directive.target is None else (yield from self._target(directive.target, domain))
        if mechanism is Mechanism.INCLUDE:
            return (yield from self._included(target, domain))
        if not _is_name(target):
            return False
        if mechanism is Mechanism.EXISTS:
            return bool((yield from self._ask(RecordKind.A, target)).values)
        if mechanism is Mechanism.A:
            return (yield from self._has_address(target, directive))
        if mechanism is Mechanism.MX:
            hosts = (yield from self._ask(RecordKind.MX, target)).values
            if len(hosts) > MAX_HOSTS:
                raise _Permanent(f"{target} has more than {MAX_HOSTS} mail hosts")
            for host in filter(None, hosts):
                if (yield from self._has_address(host, directive)):
                    return True
            return False
        names = yield from self._confirmed_names()
        return any(name == target.lower() or name.endswith(f".{target.lower()}") for name in names)

    def _included(self, target: str, domain: str) -> Asking[bool]:
        if not _is_name(target):
            raise _Permanent(f"include of {domain}: {target} is no domain name")
        try:
            text = yield from self.record_of(target)
        except _NoRecord as reason:
            raise _Permanent(f"include of {domain}: {reason}") from reason
        result, _ = yield from self.evaluate(target, text)
        return result is SpfResult.PASS

    def _has_address(self, host: str, directive: Directive) -> Asking[bool]:
        bits = directive.prefixes[0 if self._address.version == 4 else 1]
        for found in (yield from self._ask(self._kind, host)).values:
            if self._address in ip_network((ip_address(found), bits), strict=False):
                return True
        return False

    def _confirmed_names(self) -> Asking[list[str]]:
        """Names of the address that have the address (§5.5); errors of the DNS leave names out."""
        answer = yield Question(RecordKind.PTR, self._address.reverse_pointer)
        if answer.is_void:
            self._count_void()
        confirmed = []
        for name in answer.values[:MAX_HOSTS]:
            addresses = yield Question(self._kind, name)
            if any(ip_address(found) == self._address for found in addresses.values):
                confirmed.append(name)
        return confirmed

    def _target(self, text: MacroText, domain: str) -> Asking[str]:
        values = {**self._values, "d": domain}
        if "p" in spf_macros.letters(text):
            names = yield from self._confirmed_names()
            names.sort(key=lambda name: (name != domain, not name.endswith(f".{domain}")))
            values["p"] = names[0] if names else "unknown"
        return spf_macros.expand(text, values)

    def _ask(self, kind: RecordKind, name: str) -> Asking[RecordAnswer]:
        answer = yield Question(kind, name)
        if answer.status is DnsStatus.FAILED:
            raise _Temporary(answer.detail)
        if answer.is_void:
            self._count_void()
        return answer

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _Permanent(f"it needs more than {MAX_LOOKUPS} look-ups")

    def _count_void(self) -> None:
        self._voids += 1
        if self._voids > MAX_VOID_LOOKUPS:
            raise _Permanent(f"more than {MAX_VOID_LOOKUPS} of its look-ups find nothing")


def _is_name(domain: str) -> bool:
    name = domain.removesuffix(".")
    return len(name) <= spf_macros.MAX_NAME_BYTES and all(map(_LABEL.fullmatch, name.split(".")))
