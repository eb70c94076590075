"""What the checks of addresses and domains, and the senders' reports, mean as conditions. Pure.

Where the DNS did not answer a condition is Unknown, never False. Where nobody has looked since the operator started, what the
status says stays, so that a restart changes nothing. Neighbours: `wanted` (what is asked), `reports` (what senders tell),
`conditions` (everything else that an object's status says), `quarantines` (what follows for an address).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from postrail.core.checks import CheckResult, Verdict
from postrail.core.conditions import Condition, ConditionType, Reason, Truth
from postrail.core.kind_specs import BindingMode, IPPoolSpec, SendingDomainSpec
from postrail_operator import wanted
from postrail_operator.leases import Lease
from postrail_operator.objects import Item, Objects
from postrail_operator.reports import MISMATCH, PROXY, UNBOUND, Report
from postrail_operator.wanted import Answers, ListedCheck, PtrCheck, Routes

OF_ADDRESSES = (
    ConditionType.PLUMBED,
    ConditionType.PTR_VALID,
    ConditionType.SPF_AUTHORIZED,
    ConditionType.SOURCE_VERIFIED,
    ConditionType.LISTED,
)
OF_DOMAINS = (ConditionType.DKIM_PUBLISHED, ConditionType.SPF_AUTHORIZED, ConditionType.DMARC_VALID)
SHOWN = 5
"""Of several findings, those that a message tells."""

_TRUTH = {Verdict.PASSED: Truth.TRUE, Verdict.FAILED: Truth.FALSE, Verdict.UNKNOWN: Truth.UNKNOWN}
_REASONS = frozenset(reason.value for reason in Reason)
"""A status may have those of another release."""
Previous = Iterable[Mapping[str, Any]]
"""Conditions as a status has them."""


def of_address(
    lease: Lease,
    pool: IPPoolSpec | None,
    answers: Answers,
    reports: Sequence[Report] | None,
    routes: Routes,
    before: Previous,
) -> list[Condition]:
    """What is known of an address, one condition for each of OF_ADDRESSES.

    Args:
        reports: of all senders; None: nobody asked them yet.
        before: what the status says of the address, as far as it is about the same name.
    """
    source = lease.address
    told = [report for report in reports or () if (report.address, report.pool) == (source.address, lease.leased_to)]
    mode = pool.binding.mode if pool is not None else BindingMode.SOCKS5
    asked = reports is not None
    found = {
        ConditionType.PLUMBED: _plumbed(lease, mode, told) if asked else None,
        ConditionType.PTR_VALID: _single(ConditionType.PTR_VALID, answers.get(PtrCheck(source.address, source.ehlo))),
        ConditionType.SPF_AUTHORIZED: _spf_of_address(lease, answers, routes),
        ConditionType.SOURCE_VERIFIED: _source_verified(lease, mode, told, before) if asked else None,
        ConditionType.LISTED: _listed(answers.get(ListedCheck(source.address))),
    }
    return [found[kind] or _kept(kind, before) for kind in OF_ADDRESSES]


def of_domain(
    item: Item[SendingDomainSpec], objects: Objects, answers: Answers, routes: Routes, before: Previous
) -> list[Condition]:
    """What is known of a domain: one condition for each of OF_DOMAINS, and what they say together."""
    assert item.spec is not None
    keys = wanted.dkim_checks(item, objects)
    addresses = wanted.spf_of_domain(item.spec.domain, routes)
    without_keys = Condition(
        ConditionType.DKIM_PUBLISHED,
        Truth.UNKNOWN,
        Reason.NO_KEY,
        "no key can be used, so nothing signs for the domain",
    )
    without_addresses = Condition(
        ConditionType.SPF_AUTHORIZED, Truth.UNKNOWN, Reason.NO_ADDRESSES, "its mail has no address to leave from yet"
    )
    dkim = _together(ConditionType.DKIM_PUBLISHED, [answers.get(one) for one in keys]) if keys else without_keys
    spf = _together(ConditionType.SPF_AUTHORIZED, [answers.get(one) for one in addresses])
    found = {
        ConditionType.DKIM_PUBLISHED: dkim,
        ConditionType.SPF_AUTHORIZED: spf if addresses else without_addresses,
        ConditionType.DMARC_VALID: _single(ConditionType.DMARC_VALID, answers.get(wanted.dmarc_check(item, objects))),
    }
    conditions = [found[kind] or _kept(kind, before) for kind in OF_DOMAINS]
    return [_verified(conditions), *conditions]


def unchecked(kinds: Iterable[ConditionType]) -> list[Condition]:
    """The conditions where the checks are switched off."""
    text = "the checks are switched off (operator.checks.enabled)"
    return [Condition(kind, Truth.UNKNOWN, Reason.NOT_CHECKED, text) for kind in kinds]


def _kept(kind: ConditionType, before: Previous) -> Condition:
    """What the status said, where nobody has looked since."""
    for one in before:
        if one.get("type") == kind and one.get("reason") in _REASONS:
            return Condition(kind, Truth(one["status"]), Reason(one["reason"]), str(one.get("message", "")))
    return Condition(kind, Truth.UNKNOWN, Reason.NOT_CHECKED, "nobody has looked yet")


def text_of(result: CheckResult) -> str:
    """A result for a person: what was found, and what to do."""
    parts = [result.found, result.advice, f"publish {result.record}" if result.record is not None else ""]
    return "; ".join(part for part in parts if part)


def _single(kind: ConditionType, result: CheckResult | None) -> Condition | None:
    return None if result is None else Condition(kind, _TRUTH[result.verdict], Reason(result.reason), text_of(result))


def _together(kind: ConditionType, results: Sequence[CheckResult | None]) -> Condition | None:
    """Several results as one: what failed counts most, then what nobody could tell. None: nobody has looked at all of them."""
    present = [result for result in results if result is not None]
    for verdict in (Verdict.FAILED, Verdict.UNKNOWN):
        if some := [result for result in present if result.verdict is verdict]:
            text = " | ".join(f"{result.subject}: {text_of(result)}" for result in some[:SHOWN])
            more = f" | and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            return Condition(kind, _TRUTH[verdict], Reason(some[0].reason), text + more)
    if len(present) < len(results):
        return None
    subjects = ", ".join(dict.fromkeys(result.subject for result in present[:SHOWN]))
    return Condition(kind, Truth.TRUE, Reason.VERIFIED, f"all {len(present)} looked at are as they must be: {subjects}")


def _spf_of_address(lease: Lease, answers: Answers, routes: Routes) -> Condition | None:
    checks = wanted.spf_of_address(lease, routes)
    if not checks:
        text = "no SendingDomain or Submitter names a domain whose mail leaves from it"
        return Condition(ConditionType.SPF_AUTHORIZED, Truth.UNKNOWN, Reason.NO_DOMAINS, text)
    found = _together(ConditionType.SPF_AUTHORIZED, [answers.get(one) for one in checks])
    domains = len(routes.domains(lease))
    if found is None or domains <= len(checks):
        return found
    text = f"of {domains} domains the first {len(checks)} are looked at: {found.message}"
    return Condition(found.type, found.status, found.reason, text)


def _listed(result: CheckResult | None) -> Condition | None:
    kind = ConditionType.LISTED
    if result is None:
        return None
    if result.verdict is Verdict.PASSED:
        return Condition(kind, Truth.FALSE, Reason.NOT_LISTED, result.found or "no list has it")
    truth = Truth.TRUE if result.verdict is Verdict.FAILED else Truth.UNKNOWN
    return Condition(kind, truth, Reason(result.reason), text_of(result))


def _not_told(kind: ConditionType, lease: Lease, mode: BindingMode, told: Sequence[Report]) -> Condition | None:
    """Why nobody can tell; None where senders do."""
    if mode is BindingMode.EGRESS_GATEWAY:
        text = "the network translates to it, and senders cannot see from which address their mail leaves"
        return Condition(kind, Truth.UNKNOWN, Reason.NOT_VERIFIABLE, text)
    if told:
        return None
    text = "no running sender of its SenderPool tells of it" if lease.leased_to else "no SenderPool uses it"
    return Condition(kind, Truth.UNKNOWN, Reason.NO_REPORT, text)


def _plumbed(lease: Lease, mode: BindingMode, told: Sequence[Report]) -> Condition:
    kind = ConditionType.PLUMBED
    if (nobody := _not_told(kind, lease, mode, told)) is not None:
        return nobody
    if lacking := [report for report in told if UNBOUND in report.problems]:
        text = (
            f"{_names(lacking)} cannot bind it: no interface there has it. Add it to one, or take the nodes' label away "
            "that binding.nodeSelector names; mail for it waits there"
        )
        return Condition(kind, Truth.FALSE, Reason.NOT_ON_THIS_MACHINE, text)
    if cut_off := [report for report in told if PROXY in report.problems]:
        text = f"its proxy does not answer {_names(cut_off)}, or refuses; look whether it runs, and at its rules and password"
        return Condition(kind, Truth.FALSE, Reason.PROXY_FAILED, text)
    where = "its proxy answers" if mode is BindingMode.SOCKS5 else "it can be bound"
    return Condition(kind, Truth.TRUE, Reason.VERIFIED, f"{where} where its senders run")


def _source_verified(lease: Lease, mode: BindingMode, told: Sequence[Report], before: Previous) -> Condition:
    """Where no connection tells since the senders started, that one left from it before still counts."""
    kind = ConditionType.SOURCE_VERIFIED
    if (nobody := _not_told(kind, lease, mode, told)) is not None:
        return nobody
    if wrong := [report for report in told if MISMATCH in report.problems]:
        cause = (
            "its proxy bound another address, or did not say which"
            if mode is BindingMode.SOCKS5
            else "a route or a NAT"
        )
        text = f"a connection of {_names(wrong)} would have left from another address, and was closed; look for {cause}"
        return Condition(kind, Truth.FALSE, Reason.OTHER_SOURCE, text)
    if any(report.verified for report in told):
        return Condition(kind, Truth.TRUE, Reason.VERIFIED, "connections leave from it")
    known = _kept(kind, before)
    if known.status is Truth.TRUE:
        return known
    text = "no connection has left from it since its senders started"
    return Condition(kind, Truth.UNKNOWN, Reason.NO_CONNECTION, text)


def _names(reports: Sequence[Report]) -> str:
    names = [f"{report.pod} on {report.node}" if report.node else report.pod for report in reports[:SHOWN]]
    return ", ".join(names) + (f" and {len(reports) - SHOWN} more" if len(reports) > SHOWN else "")


def _verified(conditions: Sequence[Condition]) -> Condition:
    kind = ConditionType.VERIFIED
    for truth in (Truth.FALSE, Truth.UNKNOWN):
        if some := [one for one in conditions if one.status is truth]:
            text = " | ".join(f"{one.type}: {one.message}" for one in some)
            return Condition(kind, truth, some[0].reason, text)
    return Condition(kind, Truth.TRUE, Reason.VERIFIED, "the DNS has every record as it must be")
