"""Delivery status notifications: what the sender is told of its mail, and whether it is told at all.

Owns the rules of NOTIFY and RET and the bytes of the report (RFC 3461, RFC 3464, RFC 6533). Never notifies a null reverse
path, and lets nothing that a stranger wrote break a line. Ids and the time are arguments; `settle` decides what is reported.
"""

from __future__ import annotations

import quopri
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum

from postrail.core.records import Envelope, Message, MessageId, Notify, Recipient
from postrail.core.replies import Reply

FULL_LIMIT_BYTES = 64 << 10
"""The original is returned whole only where that was asked for (RET=FULL) and it is not larger."""

_LINE_LIMIT = 900
_HEADERS_LIMIT_BYTES = 64 << 10


class Action(StrEnum):
    """What became of a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """One recipient's part of the report.

    `status` is the enhanced code of RFC 3463; `reply` the last one, or None; `remote_mta` the host that gave it, "" when
    Postrail itself did.
    """

    recipient: Recipient
    action: Action
    status: str
    reply: Reply | None = None
    remote_mta: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """The message that is reported on. `body` is None where it is not at hand: then only its header block is returned."""

    envelope: Envelope
    header_block: bytes
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What all recipients of one notification share. Times are Unix seconds; 0.0: not known."""

    message_id: MessageId
    reporting_mta: str
    now: float
    last_attempt_at: float = 0.0
    will_retry_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification of ours, ready to be accepted: its record and its body."""

    message: Message
    body: bytes


def wanted(recipient: Recipient, action: Action) -> bool:
    """Whether the sender wants to hear of this (RFC 3461 §4.1, §5.2).

    Without NOTIFY, of failures only: a delay or a success is reported where it was asked for.
    """
    notify = recipient.notify
    if notify & Notify.NEVER:
        return False
    if action is Action.FAILED:
        return notify == Notify.ABSENT or bool(notify & Notify.FAILURE)
    return bool(notify & (Notify.DELAY if action is Action.DELAYED else Notify.SUCCESS))


def build(original: Original, statuses: Sequence[RecipientStatus], report: Report) -> Notice | None:
    """One notification that lists all recipients whose sender wants to hear of them.

    Args:
        statuses: all with the same action.
    Returns:
        None when nobody wants it, or the reverse path is null (RFC 5321 §4.5.5).
    """
    told = [status for status in statuses if wanted(status.recipient, status.action)]
    if not told or not original.envelope.reverse_path:
        return None
    international = _is_international(original, told)
    boundary = f"=_postrail.{report.message_id}"
    returned, eight_bit = _returned(original, international, full=_returns_full(original, told[0].action))
    explanation = _explanation(original, told, report)
    body = b"\r\n".join(
        [
            *_part(boundary, "text/plain; charset=utf-8", "7bit" if explanation.isascii() else "quoted-printable"),
            _quoted(explanation.encode()),
            *_part(
                boundary,
                f"message/{'global-' if international else ''}delivery-status",
                "8bit" if international else "",
            ),
            _delivery_status(original, told, report, international),
            f"--{boundary}".encode(),
            returned,
            f"--{boundary}--".encode(),
            b"",
        ]
    )
    header_block = _header_block(original, told[0].action, report, boundary, eight_bit=international or eight_bit)
    envelope = Envelope(
        message_id=report.message_id,
        reverse_path="",
        recipients=(Recipient(original.envelope.reverse_path),),
        submitter="",
        stream=original.envelope.stream,
        lane=original.envelope.lane,
        received_at=report.now,
        expires_at=report.now + (original.envelope.expires_at - original.envelope.received_at),
        size_bytes=len(header_block) + 2 + len(body),
        eight_bit=international or eight_bit,
        smtputf8=international,
        header_message_id=_own_message_id(report),
    )
    return Notice(Message(envelope, header_block), body)


_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.DELIVERED: "Your message was delivered",
    Action.RELAYED: "Your message was passed on",
}


def _own_message_id(report: Report) -> str:
    return f"{report.message_id}@{_ascii(report.reporting_mta)}"


def _header_block(original: Original, action: Action, report: Report, boundary: str, *, eight_bit: bool) -> bytes:
    host = _ascii(report.reporting_mta)
    lines = [
        f"Date: {_date(report.now)}",
        f'From: "Mail Delivery System" <mailer-daemon@{host}>',
        f"To: <{_clean(original.envelope.reverse_path)}>",
        f"Subject: {_SUBJECTS[action]}",
        f"Message-ID: <{_own_message_id(report)}>",
    ]
    if original.envelope.header_message_id:
        answered = f"<{_ascii(original.envelope.header_message_id)}>"
        lines += [f"In-Reply-To: {answered}", f"References: {answered}"]
    lines += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
    ]
    if eight_bit:
        lines.append("Content-Transfer-Encoding: 8bit")
    return ("\r\n".join(lines) + "\r\n").encode()


def _part(boundary: str, content_type: str, encoding: str) -> list[bytes]:
    lines = [f"--{boundary}", f"Content-Type: {content_type}"]
    if encoding:
        lines.append(f"Content-Transfer-Encoding: {encoding}")
    return [*(line.encode() for line in lines), b""]


_OPENINGS = {
    Action.FAILED: "Your message could not be delivered to the recipients below.\r\nIt will not be tried again.",
    Action.DELAYED: "Your message could not be delivered yet to the recipients below.\r\nYou need not do anything.",
    Action.DELIVERED: "Your message was delivered to the recipients below.",
    Action.RELAYED: "Your message was passed on for the recipients below to a mail server\r\n"
    "that sends no confirmations of delivery of its own.",
}


def _explanation(original: Original, told: Sequence[RecipientStatus], report: Report) -> str:
    lines = [f"This is the mail system at {_ascii(report.reporting_mta)}.", "", _OPENINGS[told[0].action]]
    if report.will_retry_until:
        lines.append(f"It is tried again until {_date(report.will_retry_until)}.")
    for status in told:
        lines += ["", f"<{_clean(status.recipient.address)}>"]
        if status.reply is not None:
            said = f"The mail server {_clean(status.remote_mta)} said:" if status.remote_mta else "The reason:"
            lines += [f"    {said}", f"    {_clean(str(status.reply))}"]
        advice = _advice(status)
        if advice:
            lines.append(f"    {advice}")
    lines += [
        "",
        f"The message arrived here at {_date(original.envelope.received_at)}; its id here is",
        f"{original.envelope.message_id}.",
        "Name that id when you ask the administrator of your mail system about it.",
        "",
    ]
    return "\r\n".join(lines)


_ADVICE = {
    "5.1.1": "Check the spelling of the address.",
    "5.1.2": "Check the part of the address after the @: that domain does not exist or receives no mail.",
    "5.1.10": "Check the part of the address after the @: that domain receives no mail.",
    "5.2.1": "The mailbox exists but takes no mail; reach the recipient in another way.",
    "5.2.2": "The mailbox is full; send the message again later.",
    "5.3.4": "The message is larger than the recipient's mail system takes; send a smaller one.",
    "5.4.7": "The time allowed for delivery is over. Send the message again later, or reach the recipient in another way.",
    "5.7.1": "The recipient's mail system refuses such mail; ask its administrator or reach the recipient in another way.",
}


def _advice(status: RecipientStatus) -> str:
    if status.action is not Action.FAILED:
        return ""
    return _ADVICE.get(
        status.status, "If this is unexpected, show this notice to the administrator of your mail system."
    )


def _delivery_status(original: Original, told: Sequence[RecipientStatus], report: Report, international: bool) -> bytes:
    """RFC 3464 §2: fields of the message, then a group of fields for each recipient."""
    envelope = original.envelope
    lines = [f"Reporting-MTA: dns; {_ascii(report.reporting_mta)}"]
    if envelope.envid:
        lines.insert(0, f"Original-Envelope-Id: {_ascii(envelope.envid)}")
    lines.append(f"Arrival-Date: {_date(envelope.received_at)}")
    for status in told:
        lines.append("")
        if status.recipient.orcpt:
            lines.append(f"Original-Recipient: {_original_recipient(status.recipient.orcpt, international)}")
        lines.append(f"Final-Recipient: {_typed(status.recipient.address, international)}")
        lines.append(f"Action: {status.action}")
        lines.append(f"Status: {status.status}")
        if status.remote_mta:
            lines.append(f"Remote-MTA: dns; {_ascii(status.remote_mta)}")
        if status.reply is not None:
            kind = "smtp" if status.remote_mta else "X-Postrail"
            lines.append(f"Diagnostic-Code: {kind}; {_ascii(str(status.reply))}")
        if report.last_attempt_at:
            lines.append(f"Last-Attempt-Date: {_date(report.last_attempt_at)}")
        if report.will_retry_until and status.action is Action.DELAYED:
            lines.append(f"Will-Retry-Until: {_date(report.will_retry_until)}")
    return ("\r\n".join(lines) + "\r\n").encode()


def _typed(address: str, international: bool) -> str:
    """Address with its type: `rfc822`, or `utf-8` (RFC 6533 §3), escaped where the report itself is ASCII."""
    cleaned = _clean(address)
    if cleaned.isascii():
        return f"rfc822; {cleaned}"
    return f"utf-8; {cleaned if international else _escaped(cleaned)}"


def _original_recipient(orcpt: str, international: bool) -> str:
    kind, _, address = _clean(orcpt).partition(";")
    if not address.isascii() and not international:
        address = _escaped(address)
    return f"{_ascii(kind)}; {address.strip()}"


def _escaped(text: str) -> str:
    """utf-8-addr-xtext of RFC 6533 §3: `\\x{HEX}` for what is not ASCII."""
    return "".join(c if c.isascii() and c not in "\\+=" else f"\\x{{{ord(c):02X}}}" for c in text)


def _is_international(original: Original, told: Sequence[RecipientStatus]) -> bool:
    """Whether the report needs SMTPUTF8 anyway, so that it may show addresses as they are."""
    return original.envelope.smtputf8 and (
        not original.envelope.reverse_path.isascii() or any(not status.recipient.address.isascii() for status in told)
    )


def _returns_full(original: Original, action: Action) -> bool:
    """RET applies to failures only (RFC 3461 §4.3); without RET=FULL the header block is enough."""
    return (
        action is Action.FAILED
        and original.envelope.ret == "FULL"
        and original.body is not None
        and len(original.header_block) + len(original.body) <= FULL_LIMIT_BYTES
    )


def _returned(original: Original, international: bool, *, full: bool) -> tuple[bytes, bool]:
    """The last part, its header included, and whether it needs 8BITMIME."""
    if full and original.body is not None:
        content = original.header_block + b"\r\n" + original.body
        headers_are_ascii = original.header_block.isascii()
        if headers_are_ascii or international:
            kind = "message/rfc822" if headers_are_ascii else "message/global"
            encoding = b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
            return b"Content-Type: %s\r\n%s\r\n%s" % (kind.encode(), encoding, content), not content.isascii()
    block = original.header_block[:_HEADERS_LIMIT_BYTES]
    block = block[: block.rfind(b"\r\n") + 2]
    if block.isascii() and max(map(len, block.split(b"\r\n"))) <= _LINE_LIMIT:
        return b"Content-Type: text/rfc822-headers\r\n\r\n" + block, False
    kind = "text/rfc822-headers" if not international else "message/global-headers"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head.encode() + _quoted(block, always=True), False


def _quoted(text: bytes, *, always: bool = False) -> bytes:
    """Quoted-printable where the text is not ASCII."""
    if text.isascii() and not always:
        return text
    return quopri.encodestring(text.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


def _date(at: float) -> str:
    """Unix seconds as RFC 5322 §3.3 writes it, in UTC."""
    return formatdate(at).replace("-0000", "+0000")


def _clean(text: str) -> str:
    """On one line, without control characters, of bounded length."""
    cleaned = "".join([c if c.isprintable() else " " for c in text]) if not text.isprintable() else text
    return cleaned[:_LINE_LIMIT]


def _ascii(text: str) -> str:
    return _clean(text).encode("ascii", "replace").decode("ascii")
