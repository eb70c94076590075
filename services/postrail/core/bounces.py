"""Why a receiver refused: the class of a negative reply.

Owns the closed list of classes and the rules that assign them: enhanced codes first (RFC 3463, RFC 5248), then the text,
then the code. Decides nothing about retries (`verdicts`, `retry`); suppression and reports build on the classes.
"""

from __future__ import annotations

import re
from enum import StrEnum

from postrail.core.replies import Reply
from postrail.core.verdicts import is_sender_fault


class BounceClass(StrEnum):
    """Why mail was refused. Only INVALID_RECIPIENT, BAD_DOMAIN and INACTIVE_MAILBOX speak against the address itself."""

    INVALID_RECIPIENT = "invalid-recipient"
    BAD_DOMAIN = "bad-domain"
    INACTIVE_MAILBOX = "inactive-mailbox"
    QUOTA = "quota"
    SPAM_BLOCK = "spam-block"
    SPAM_CONTENT = "spam-content"
    POLICY = "policy"
    AUTHENTICATION = "authentication"
    ROUTING = "routing"
    RELAYING_DENIED = "relaying-denied"
    PROTOCOL = "protocol"
    TOO_LARGE = "too-large"
    TOO_MANY_RECIPIENTS = "too-many-recipients"
    DNS_FAILURE = "dns-failure"
    NO_ANSWER = "no-answer"
    EXPIRED = "expired"
    TRANSIENT = "transient"
    OTHER = "other"


_HARD = frozenset({BounceClass.INVALID_RECIPIENT, BounceClass.BAD_DOMAIN, BounceClass.INACTIVE_MAILBOX})

# Subject and detail of the enhanced code, where they say enough. 0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0 and 7.1 don't: the text
# decides first.
_BY_CODE = {
    "1.1": BounceClass.INVALID_RECIPIENT,
    "1.2": BounceClass.BAD_DOMAIN,
    "1.3": BounceClass.INVALID_RECIPIENT,
    "1.4": BounceClass.INVALID_RECIPIENT,
    "1.6": BounceClass.INVALID_RECIPIENT,
    "1.7": BounceClass.POLICY,
    "1.8": BounceClass.POLICY,
    "1.10": BounceClass.BAD_DOMAIN,
    "2.1": BounceClass.INACTIVE_MAILBOX,
    "2.2": BounceClass.QUOTA,
    "2.3": BounceClass.TOO_LARGE,
    "3.1": BounceClass.QUOTA,
    "3.4": BounceClass.TOO_LARGE,
    "4.1": BounceClass.NO_ANSWER,
    "4.2": BounceClass.NO_ANSWER,
    "4.3": BounceClass.DNS_FAILURE,
    "4.4": BounceClass.ROUTING,
    "4.6": BounceClass.ROUTING,
    "4.7": BounceClass.EXPIRED,
    "5.1": BounceClass.PROTOCOL,
    "5.2": BounceClass.PROTOCOL,
    "5.3": BounceClass.TOO_MANY_RECIPIENTS,
    "5.4": BounceClass.PROTOCOL,
    "5.5": BounceClass.PROTOCOL,
    "6.7": BounceClass.PROTOCOL,
    "7.2": BounceClass.POLICY,
    "7.8": BounceClass.AUTHENTICATION,
    "7.9": BounceClass.AUTHENTICATION,
    "7.28": BounceClass.SPAM_BLOCK,
}
_WHEN_TEXT_IS_SILENT = {
    "1.5": BounceClass.OTHER,
    "4.5": BounceClass.TRANSIENT,
    "7.1": BounceClass.POLICY,
    "7.0": BounceClass.POLICY,
}
_BY_SUBJECT = {"1": BounceClass.INVALID_RECIPIENT, "5": BounceClass.PROTOCOL, "7": BounceClass.POLICY}

# In order: the first that matches. Narrow phrases stand before wide ones.
_BY_TEXT = tuple(
    (bounce_class, re.compile("|".join(phrases), re.IGNORECASE))
    for bounce_class, phrases in (
        (
            BounceClass.RELAYING_DENIED,
            (
                r"relay(?:ing)?(?: access)? (?:denied|not permitted|prohibited)",
                r"(?:unable|not (?:permitted|allowed)) to relay",
                r"not relay",
            ),
        ),
        (
            BounceClass.INACTIVE_MAILBOX,
            (
                r"(?:mailbox|account|user|recipient|address)(?: \S+)? (?:is |has been )?(?:disabled|inactive|suspended|locked)",
                r"inactive (?:user|mailbox|account)",
                r"deactivated",
                r"no longer (?:active|accepts|available)",
            ),
        ),
        (
            BounceClass.QUOTA,
            (
                r"(?:over|exceed\w*|out of|full) ?(?:the |its |his )?(?:quota|storage)",
                r"mailbox (?:is )?full",
                r"quota exceeded",
                r"insufficient (?:disk|storage|system storage)",
            ),
        ),
        (
            BounceClass.INVALID_RECIPIENT,
            (
                r"(?:no such|unknown|invalid|non-?existent) (?:user|recipient|mailbox|address|account|local)",
                r"(?:user|recipient|mailbox|address|account)(?: \S+)? (?:is )?(?:unknown|not found|invalid|unavailable|rejected)",
                r"(?:user|recipient|mailbox|address|account)(?: \S+)? (?:does ?n[o']t exist|does not exist|not known)",
                r"does not have an? \S* ?account",
                r"undeliverable address",
            ),
        ),
        (
            BounceClass.BAD_DOMAIN,
            (r"(?:domain|host)(?: \S+)? (?:not found|does not exist|unknown|has no mail)", r"null MX"),
        ),
        (BounceClass.TOO_MANY_RECIPIENTS, (r"too many recipients", r"recipient limit")),
        (BounceClass.TOO_LARGE, (r"(?:message|mail|size)\b.{0,40}(?:too (?:large|big)|exceed)", r"message size")),
        (
            BounceClass.AUTHENTICATION,
            (r"\b(?:SPF|DKIM|DMARC)\b", r"unauthenticated", r"not authenticated", r"authentication"),
        ),
        (
            BounceClass.SPAM_BLOCK,
            (
                r"(?:block|black)-?list",
                r"\b(?:RBL|DNSBL)\b",
                r"spamhaus|spamcop|barracuda",
                r"reputation",
                r"blocked|banned",
            ),
        ),
        (BounceClass.SPAM_CONTENT, (r"spam|virus|malware|phish|content|junk|unsolicited",)),
        (
            BounceClass.TRANSIENT,
            (
                r"gr[ae]y-? ?list",
                r"try (?:again )?later",
                r"temporar",
                r"rate.?limit|throttl|too many connections|deferred",
            ),
        ),
        (BounceClass.ROUTING, (r"loop", r"too many hops")),
        (BounceClass.POLICY, (r"policy|prohibited", r"not (?:allowed|permitted|accepted)", r"denied|refused")),
    )
)


def classify(reply: Reply | None, *, expired: bool = False) -> BounceClass:
    """The class of a negative reply.

    Args:
        reply: what the receiver said last, or what Postrail itself found (DNS, no answer); None where there was none.
        expired: the deadline passed; the reply may still say more, but the class is EXPIRED.
    """
    if expired:
        return BounceClass.EXPIRED
    if reply is None:
        return BounceClass.OTHER
    detail = reply.enhanced[2:]
    if detail in _BY_CODE:
        return _BY_CODE[detail]
    if is_sender_fault(reply):
        return BounceClass.AUTHENTICATION
    for bounce_class, pattern in _BY_TEXT:
        if pattern.search(reply.text):
            return bounce_class
    if detail in _WHEN_TEXT_IS_SILENT:
        return _WHEN_TEXT_IS_SILENT[detail]
    if reply.code < 500:
        return BounceClass.TRANSIENT
    return _by_code_alone(reply, detail)


def is_hard(bounce_class: BounceClass) -> bool:
    """Whether the address itself is at fault, so that it is suppressed."""
    return bounce_class in _HARD


def _by_code_alone(reply: Reply, detail: str) -> BounceClass:
    subject = _BY_SUBJECT.get(detail[:1])
    if subject is not None:
        return subject
    if reply.code in {500, 501, 502, 503, 504, 555}:
        return BounceClass.PROTOCOL
    if reply.code == 552:
        return BounceClass.TOO_LARGE
    if reply.code in {530, 535, 538}:
        return BounceClass.AUTHENTICATION
    if reply.code == 556:
        return BounceClass.BAD_DOMAIN
    return BounceClass.OTHER
