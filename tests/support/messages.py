"""The messages that end-to-end tests submit, and how they read what comes back."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import dataclass
from email.message import EmailMessage, Message

BODY = (
    b"Hello,\r\n\r\n.a line that begins with a dot\r\n..and one with two\r\n.\r\n"
    b"trailing spaces  \t\r\n\tand a tab\r\n\r\n\r\nThe end.\r\n"
)


def message(sender: str, recipient: str, *, body: bytes = BODY, extra: str = "", subject: str = "A test") -> bytes:
    """A whole message with CRLF line ends; `extra` are header fields that end with CRLF."""
    head = f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n{extra}\r\n"
    return head.encode() + body


def body_of(received: bytes) -> bytes:
    """What follows the header."""
    return received.partition(b"\r\n\r\n")[2]


def header_of(received: bytes) -> EmailMessage:
    """The message as the standard library reads it."""
    parsed = email.message_from_bytes(received, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


Fields = dict[str, str]
"""Header-like fields; the space that may stand after a type's semicolon is left out (`rfc822;user@example.com`)."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A delivery status notification, taken apart: RFC 3464.

    Attributes:
        message: the whole.
        text: what a person reads.
        about_message: the fields for the message.
        recipients: the fields for each recipient.
        returned: the part with the original, whole or its header.
    """

    message: EmailMessage
    text: str
    about_message: Fields
    recipients: tuple[Fields, ...]
    returned: Message


def read_report(received: bytes) -> DeliveryReport:
    """Take a notification apart, asserting that it has the shape that RFC 3462 and RFC 3464 ask for."""
    parsed = header_of(received)
    assert parsed.get_content_type() == "multipart/report", parsed.get_content_type()
    assert parsed.get_param("report-type") in {"delivery-status", "global-delivery-status"}
    assert not parsed.defects
    text, status, returned = parsed.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() in {"message/delivery-status", "message/global-delivery-status"}
    about_message, *recipients = _blocks(status)
    return DeliveryReport(parsed, str(text.get_content()), about_message, tuple(recipients), returned)


def _blocks(status: Message) -> list[Fields]:
    """The groups of fields of a delivery-status part, read from its bytes: they may be UTF-8 (RFC 6533)."""
    text = status.as_bytes().replace(b"\r\n", b"\n").decode()
    groups = []
    for group in text.split("\n\n")[1:]:
        lines = re.sub(r"\n[ \t]+", " ", group).splitlines()
        fields = {name: value.strip().replace("; ", ";") for name, _, value in (line.partition(":") for line in lines)}
        groups.append(fields)
    return [fields for fields in groups if fields]
