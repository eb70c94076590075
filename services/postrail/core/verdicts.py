"""What a negative reply means: temporary or permanent, and what it says something about.

Owns the judgement of replies by code, enhanced code, text and the command that they answer; never by the code alone.
Does no retry arithmetic (`retry`), names no bounce class (`bounces`) and builds no notification (`dsn`).

Where receivers disagree with RFC 5321, or it leaves a choice, Postrail prefers to keep the mail: a wrong retry costs a
connection, a wrong bounce costs a message.
"""

from __future__ import annotations

import re
from enum import StrEnum

from postrail.core.replies import Failure, PermanentFailure, Reply, Scope, TemporaryFailure


class Stage(StrEnum):
    """The command that a reply answers. CONTENT is the final dot (or the last BDAT), in LMTP for each recipient."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"


_BEFORE_MAIL = frozenset({Stage.GREETING, Stage.EHLO, Stage.STARTTLS})
_PROTOCOL_CODES = frozenset({500, 502, 503, 504})
_TOO_LARGE = frozenset({"5.2.3", "5.3.4"})

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")

# Faults of the sender's side: RFC 7372 (7.20 to 7.26), RFC 7505 (7.27), and what Gmail, Yahoo and Microsoft make of them.
_SENDER_FAULTS = frozenset({*(f"7.{detail}" for detail in range(20, 33)), "7.515"})
_SENDER_FAULTS_OF_THE_ADDRESS = frozenset({"7.25", "7.28"})

_SESSION_TEXT = re.compile(
    r"too many (?:messages|mails|transactions|recipients|errors).{0,40}(?:session|connection)"
    r"|(?:messages?|transactions?) (?:per|in this|for this) (?:session|connection)"
    r"|time-? ?out|timed out|idle|too long",
    re.IGNORECASE,
)
_GREYLIST_TEXT = re.compile(r"gr[ae]y-? ?list", re.IGNORECASE)
_SITE_TEXT = re.compile(
    r"unusual rate|rate.?limit|throttl|too many (?:concurrent )?(?:connections|sessions)|too many messages|too fast"
    r"|connection (?:rate|limit|frequency)|temporarily (?:deferred|blocked|rate)|reputation|\[TSS?\d\d\]|\bS77719\b|slow down"
    r"|(?:ip|host|client|address).{0,40}(?:block|black|deny|black)-?list|(?:block|black)-?list.{0,60}(?:ip|client|host)",
    re.IGNORECASE,
)


def judge(reply: Reply, stage: Stage) -> Failure:
    """Decide what a reply that is not the wanted one means.

    * 4yz is temporary. 5yz is permanent from MAIL on, with the exceptions below.
    * An enhanced code whose class contradicts the reply code (`550 4.2.2`, against RFC 2034 §4): temporary, because one of
      the two says so.
    * 421 at any command: temporary; the server closes the connection. It says something about the site, unless its text
      speaks of this session only (too many messages in it, idle) (RFC 5321 §3.8).
    * 5yz to the greeting, EHLO or STARTTLS: never the recipient's fault, and often one host's: temporary, scope session.
      The sender tries the next MX host (RFC 5321 §5.1), then later; in the end the mail expires with this reply.
    * 552 to RCPT: temporary (RFC 5321 §4.5.3.1.10), except with 5.2.3 or 5.3.4, which speak of the message's size.
    * 500, 502, 503, 504: the server lost track of the dialogue: temporary, scope session. 501 and 555 speak of the argument.
    * A positive reply where another was wanted, or a code outside 200 to 599: temporary, scope session.

    Scopes: sender faults (`is_sender_fault`) are of the message, or of the site where they speak of our address; x.1.z and
    x.2.z of the recipient, except the sender's address (x.1.7, x.1.8); x.3.z, except the size, of the site. Everything
    else as the stage says: MAIL, DATA and CONTENT the message, RCPT the recipient.

    Args:
        reply: as received; `enhanced` may be "".
        stage: what it answers.
    Source: RFC 5321 §4.2, RFC 3463, RFC 5248; deviations in docs/rfc.md.
    """
    if not 400 <= reply.code < 600:
        return TemporaryFailure(reply, Scope.SESSION)
    if reply.code == 421:
        return TemporaryFailure(reply, Scope.SESSION if _SESSION_TEXT.search(reply.text) else Scope.SITE)
    if stage in _BEFORE_MAIL:
        site = reply.code < 500 and stage is not Stage.STARTTLS
        return TemporaryFailure(reply, Scope.SITE if site else Scope.SESSION)
    if reply.code in _PROTOCOL_CODES and not is_sender_fault(reply):
        return TemporaryFailure(reply, Scope.SESSION)
    scope = _scope(reply, stage)
    return TemporaryFailure(reply, scope) if _is_temporary(reply, stage) else PermanentFailure(reply, scope)


def is_sender_fault(reply: Reply) -> bool:
    """Whether the receiver blames the sending address, domain or stream: it must never count against the recipient.

    Gmail 5.7.25 (PTR), 5.7.26 (authentication), 5.7.28 (rate, spam), 5.7.29 (TLS) and neighbours; Microsoft 5.7.515.
    """
    return reply.code >= 400 and reply.enhanced[2:] in _SENDER_FAULTS


def enhanced_status(reply: Reply, *, permanent: bool) -> str:
    """The status code for notifications and events: the reply's own where it agrees with the verdict, otherwise x.0.0.

    A code of the other class keeps its subject and detail: they are what is known (`452 4.2.2` that expired: 5.2.2).
    """
    wanted = "5" if permanent else "4"
    if _ENHANCED.fullmatch(reply.enhanced) and reply.enhanced[0] != "2":
        return wanted + reply.enhanced[1:]
    return f"{wanted}.0.0"


def _is_temporary(reply: Reply, stage: Stage) -> bool:
    if reply.code < 500:
        return True
    if reply.enhanced.startswith("4."):
        return True
    return reply.code == 552 and stage is Stage.RCPT and reply.enhanced not in _TOO_LARGE


def _scope(reply: Reply, stage: Stage) -> Scope:
    code = reply.enhanced[2:]
    if code in _SENDER_FAULTS:
        return Scope.SITE if code in _SENDER_FAULTS_OF_THE_ADDRESS else Scope.MESSAGE
    usual = Scope.RECIPIENT if stage is Stage.RCPT else Scope.MESSAGE
    if _GREYLIST_TEXT.search(reply.text):
        return usual
    if code.startswith(("1.", "2.")):
        return Scope.MESSAGE if code in {"1.7", "1.8"} or stage is Stage.MAIL else Scope.RECIPIENT
    if code.startswith("3.") and code != "3.4" and reply.code < 500:
        return Scope.SITE
    if _SITE_TEXT.search(reply.text):
        return Scope.SITE
    return usual
