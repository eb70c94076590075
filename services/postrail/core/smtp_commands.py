"""What a transaction asks of a server: its command lines, and what stands in its way.

Owns the MAIL and RCPT lines with their parameters (RFC 5321, 1870, 3461, 6152, 6531), the parsing of capabilities, and the
refusals that need no reply (too large, 8-bit, SMTPUTF8). Nothing leaves here with CR, LF or NUL in it. `smtp_client` decides
when a line is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from postrail.core.records import Notify, Recipient
from postrail.core.replies import PermanentFailure, Reply, Scope


class LocalProtocolError(Exception):
    """What was to be sent must not be: it breaks the protocol, or makes no sense now. Nothing of it was sent."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server offers. `size_bytes` is None where it names no limit."""

    pipelining: bool = False
    starttls: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    size: bool = False
    size_bytes: int | None = None


NO_CAPABILITIES = Capabilities()


def parse_capabilities(lines: Sequence[str]) -> Capabilities:
    """The lines of an EHLO or LHLO reply, the greeting first (RFC 5321 §4.1.1.1)."""
    found = {keyword.upper(): rest for keyword, _, rest in (line.partition(" ") for line in lines[1:])}
    limit = found.get("SIZE", "").strip()
    return Capabilities(
        pipelining="PIPELINING" in found,
        starttls="STARTTLS" in found,
        eight_bit="8BITMIME" in found,
        smtputf8="SMTPUTF8" in found,
        dsn="DSN" in found,
        size="SIZE" in found,
        size_bytes=int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 19 and int(limit) else None,
    )


class Transaction(NamedTuple):
    """One message for one server. `size_bytes` counts what is sent before dot-stuffing, without the final dot."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    size_bytes: int
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


def obstacle(transaction: Transaction, peer: Capabilities) -> PermanentFailure | None:
    """Why this server cannot be given this message, in our own words; None when it can.

    Source: RFC 6152 §3 (8-bit content is not converted here: that would break its signature), RFC 6531 §3.5 (no
    downgrade), RFC 1870 §6.1.
    """
    if transaction.smtputf8 and not peer.smtputf8:
        return _refusal(553, "5.6.7", "the receiving server does not support internationalised mail (SMTPUTF8)")
    if transaction.eight_bit and not peer.eight_bit:
        return _refusal(554, "5.6.3", "the receiving server does not accept 8-bit content (8BITMIME)")
    if peer.size_bytes is not None and transaction.size_bytes > peer.size_bytes:
        text = f"the message has {transaction.size_bytes} bytes, the receiving server accepts {peer.size_bytes}"
        return _refusal(552, "5.3.4", text)
    return None


def _refusal(code: int, enhanced: str, text: str) -> PermanentFailure:
    return PermanentFailure(Reply(code, enhanced, text), Scope.MESSAGE, internal=True)


def mail_line(transaction: Transaction, peer: Capabilities) -> bytes:
    """MAIL with the parameters that the server understands.

    Raises:
        LocalProtocolError: a value holds CR, LF, NUL or an angle bracket.
    """
    line = f"MAIL FROM:<{_path(transaction.reverse_path)}>"
    if peer.size:
        line += f" SIZE={transaction.size_bytes}"
    if transaction.eight_bit and peer.eight_bit:
        line += " BODY=8BITMIME"
    if transaction.smtputf8 and peer.smtputf8:
        line += " SMTPUTF8"
    if peer.dsn:
        if transaction.ret:
            line += f" RET={transaction.ret}"
        if transaction.envid:
            line += f" ENVID={xtext(transaction.envid)}"
    return line.encode() + b"\r\n"


def rcpt_line(recipient: Recipient, peer: Capabilities) -> bytes:
    """RCPT with the parameters that the server understands; raises as `mail_line`."""
    line = f"RCPT TO:<{_path(recipient.address)}>"
    if peer.dsn:
        if recipient.notify:
            line += f" NOTIFY={_notify(recipient.notify)}"
        if recipient.orcpt:
            line += f" ORCPT={_orcpt(recipient.orcpt)}"
    return line.encode() + b"\r\n"


_UNSAFE = re.compile(r"[\r\n\x00<>]")


def _path(path: str) -> str:
    if _UNSAFE.search(path) is not None and not _is_quoted_safely(path):
        raise LocalProtocolError(f"an address that cannot be sent: {path!r}")
    return path


def _is_quoted_safely(path: str) -> bool:
    """Angle brackets may stand within a quoted local part."""
    local = path.rpartition("@")[0]
    return local[:1] == local[-1:] == '"' and re.search(r"[\r\n\x00]", path) is None


def _notify(notify: Notify) -> str:
    if notify & Notify.NEVER:
        return "NEVER"
    wanted = (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY)
    return ",".join(str(one.name) for one in wanted if notify & one)


def xtext(text: str) -> str:
    """Encode for ENVID and ORCPT (RFC 3461 §4); what is not ASCII as `\\x{...}` (RFC 6533 §3)."""
    return "".join(map(_xchar, text))


def _xchar(character: str) -> str:
    if "!" <= character <= "~" and character not in "+=":
        return character
    return f"+{ord(character):02X}" if character < "\x80" else f"\\x{{{ord(character):X}}}"


def _orcpt(orcpt: str) -> str:
    kind, _, address = orcpt.partition(";")
    if not address.isascii():
        kind = "utf-8"
        address = address.replace("\\", "\\x{5C}")
    return f"{xtext(kind)};{xtext(address)}"
