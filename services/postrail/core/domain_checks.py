"""Checks of a sending domain: DKIM key, SPF, DMARC. What the records mean for mail of ours, and what to publish.

Owns the judgement. It does no I/O: where the DNS must be asked, it yields questions and is sent the answers. Neighbours: `spf`,
`dmarc` and `dkim_record` know the records; `postrail.shell.checks.domain` asks; `address_checks` is about addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from postrail.core import dkim_record, dmarc, spf
from postrail.core.checks import Check, CheckResult, DnsRecord, Reason, Verdict, dns_failed
from postrail.core.dkim_record import PublicKey
from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordKind
from postrail.core.spf import SpfResult
from postrail.core.spf_record import authorising


def check_dkim(domain: str, selector: str, key: PublicKey) -> Asking[CheckResult]:
    """Whether the DNS publishes the public half of the key that we sign with (RFC 6376 §3.6)."""
    name = dkim_record.name(selector, domain)
    record = DnsRecord(name, "TXT", dkim_record.value(key))

    def failed(reason: Reason, found: str, advice: str) -> CheckResult:
        return CheckResult(Check.DKIM, name, Verdict.FAILED, reason, found, advice, record)

    answer = yield Question(RecordKind.TXT, name)
    if answer.status is DnsStatus.FAILED:
        return dns_failed(Check.DKIM, name, answer.detail)
    if answer.is_void:
        return failed(Reason.RECORD_MISSING, answer.detail or f"{name} has no TXT record", "publish the record")
    if len(answer.values) > 1:
        found = f"{len(answer.values)} TXT records, of which a verifier takes any"
        return failed(Reason.SEVERAL_RECORDS, found, "leave one of them")
    try:
        published = dkim_record.parse(answer.values[0])
    except dkim_record.KeyRevoked as error:
        advice = "the key was withdrawn on purpose: sign with another selector, or publish the record again"
        return failed(Reason.KEY_REVOKED, str(error), advice)
    except ValueError as error:
        return failed(Reason.RECORD_INVALID, f"{answer.values[0]!r}: {error}", "replace the record")
    if published != key:
        advice = "replace the record; where another system signs with this selector, choose another one"
        return failed(Reason.OTHER_KEY, f"another {published.kind} key than the configured {key.kind} key", advice)
    return CheckResult(Check.DKIM, name, Verdict.PASSED, Reason.VERIFIED, f"the configured {key.kind} key")


def check_spf(domain: str, address: IPv4Address | IPv6Address, ehlo: str) -> Asking[CheckResult]:
    """Whether the record of a return path's domain allows an address (RFC 7208)."""
    outcome = yield from spf.check_host(address, domain, f"postmaster@{domain}", ehlo)
    record = DnsRecord(domain, "TXT", authorising(outcome.record, address))

    def ended(verdict: Verdict, reason: Reason, advice: str = "", publish: DnsRecord | None = None) -> CheckResult:
        found = f"{outcome.result} for {address}: {outcome.detail}" + (f" ({outcome.record})" if outcome.record else "")
        return CheckResult(Check.SPF, domain, verdict, reason, found, advice, publish)

    if outcome.result is SpfResult.PASS:
        return ended(Verdict.PASSED, Reason.VERIFIED)
    if outcome.result is SpfResult.TEMPERROR:
        return dns_failed(Check.SPF, domain, outcome.detail)
    if outcome.result is SpfResult.NONE:
        return ended(Verdict.FAILED, Reason.RECORD_MISSING, "publish a record that names all who send", record)
    if outcome.result is SpfResult.PERMERROR:
        return ended(Verdict.FAILED, Reason.RECORD_INVALID, "repair the record: receivers pass over the whole of it")
    return ended(Verdict.FAILED, Reason.NOT_AUTHORIZED, f"add ip{address.version}:{address} to the record", record)


def check_dmarc(domain: str, return_path_domain: str, signing_domains: Sequence[str]) -> Asking[CheckResult]:
    """Whether a policy applies to the domain, and mail with it in From satisfies that by SPF or by DKIM (RFC 9989).

    Args:
        domain: of the From field; all domains in A-labels, lower case.
        return_path_domain: "" where that is not ours.
        signing_domains: `d=` of the signatures.
    """
    name = f"_dmarc.{domain}"
    try:
        author = yield from dmarc.walk(domain)
        others: dict[str, dmarc.Walk] = {domain: author}
        for other in (return_path_domain, *signing_domains):
            if other and other not in others:
                others[other] = yield from dmarc.walk(other)
    except dmarc.Unanswered as error:
        return dns_failed(Check.DMARC, name, str(error))
    if author.record is None or any(problem.name == name for problem in author.problems):
        return _without_policy(domain, author)
    applied = author.record
    by_spf = bool(return_path_domain) and dmarc.aligned(author, others[return_path_domain], strict=applied.strict_spf)
    by_dkim = [
        signer for signer in signing_domains if dmarc.aligned(author, others[signer], strict=applied.strict_dkim)
    ]
    found = f"policy {author.policy} from _dmarc.{applied.domain} ({applied.text})"
    if not by_spf and not by_dkim:
        tried = ", ".join(dict.fromkeys(filter(None, (return_path_domain, *signing_domains)))) or "nothing"
        found += f"; neither return path nor signature is aligned (there is {tried})"
        advice = f"sign with a key of {author.organisation} (signing.domains), or use a return path at or below it"
        return CheckResult(Check.DMARC, name, Verdict.FAILED, Reason.NOT_ALIGNED, found, advice)
    ways = [f"DKIM ({', '.join(by_dkim)})"] if by_dkim else []
    ways += [f"SPF ({return_path_domain})"] if by_spf else []
    advice = ""
    if author.policy is dmarc.Policy.NONE:
        advice = "p=none only observes: when the reports show no mail of yours that fails, ask for quarantine or reject"
    found += f"; aligned by {' and '.join(ways)}"
    return CheckResult(Check.DMARC, name, Verdict.PASSED, Reason.VERIFIED, found, advice)


def _without_policy(domain: str, author: dmarc.Walk) -> CheckResult:
    name = f"_dmarc.{domain}"
    record = DnsRecord(name, "TXT", f"v=DMARC1; p=none; rua=mailto:dmarc-reports@{domain}")
    if author.problems:
        several = author.problems[0].several
        reason = Reason.SEVERAL_RECORDS if several else Reason.RECORD_INVALID
        found = "; ".join(problem.text for problem in author.problems)
        advice = "leave one record" if several else "repair the record"
        return CheckResult(Check.DMARC, name, Verdict.FAILED, reason, found, advice, record)
    found = f"neither {name} nor a domain above has a DMARC record"
    advice = "publish a record; p=none observes without harm, and large receivers demand at least that"
    return CheckResult(Check.DMARC, name, Verdict.FAILED, Reason.RECORD_MISSING, found, advice, record)
