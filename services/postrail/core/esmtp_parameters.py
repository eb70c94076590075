"""Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), RET, ENVID, NOTIFY, ORCPT (3461), AUTH (4954).

Owns their syntax. Raises `Refused` with 501 5.5.4 for a wrong value and 555 5.5.4 for what is not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from postrail.core.records import Notify
from postrail.core.refusals import Reason, Refused, bad_parameter, unknown_parameter

MAX_ENVID_BYTES: Final = 100
MAX_ORCPT_BYTES: Final = 500
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ESCAPE: Final = re.compile(r"\+([0-9A-F]{2})")
_UNITEXT: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOTIFY: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What MAIL asked for; `size_bytes` is 0 where it was not said."""

    size_bytes: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


NO_PARAMETERS: Final = MailParameters()


def decode_xtext(text: str) -> str:
    """RFC 3461 §4: `+` and two hexadecimal digits stand for one character.

    Raises:
        ValueError: not xtext, or it decodes to a control character.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if "+" in text else text
    if any(character < " " or character == "\x7f" for character in decoded):
        raise ValueError("control character in xtext")
    return decoded


def _pairs(text: str) -> dict[str, str]:
    """`NAME=VALUE NAME` → names in upper case; a value is "" where there is no equals sign."""
    found: dict[str, str] = {}
    for parameter in text.split():
        name, equals, value = parameter.partition("=")
        name = name.upper()
        if not name or (equals and not value):
            raise bad_parameter("A parameter is malformed")
        if name in found:
            raise bad_parameter(f"Parameter {name} stands twice" if name.isalnum() else "A parameter stands twice")
        found[name] = value
    return found


def mail_parameters(text: str) -> MailParameters:
    """What stands after the path of MAIL.

    Raises:
        Refused: 501 5.5.4 or 555 5.5.4.
    """
    if not text:
        return NO_PARAMETERS
    values: dict[str, str | int | bool] = {}
    for name, value in _pairs(text).items():
        match name:
            case "SIZE":
                values["size_bytes"] = _size(value)
            case "BODY":
                values["eight_bit"] = _body(value.upper())
            case "SMTPUTF8":
                if value:
                    raise bad_parameter("SMTPUTF8 takes no value")
                values["smtputf8"] = True
            case "RET":
                if value.upper() not in {"FULL", "HDRS"}:
                    raise bad_parameter("RET must be FULL or HDRS")
                values["ret"] = value.upper()
            case "ENVID":
                values["envid"] = _envid(value)
            case "AUTH":
                _check_xtext(value, "AUTH")
            case _:
                raise unknown_parameter(_printable(name))
    return MailParameters(**values)  # type: ignore[arg-type]  # each name was checked with its type above


def rcpt_parameters(text: str) -> tuple[Notify, str]:
    """What stands after the path of RCPT: when to notify, and the original recipient (decoded).

    Raises:
        Refused: 501 5.5.4 or 555 5.5.4.
    """
    notify, orcpt = Notify.ABSENT, ""
    if not text:
        return notify, orcpt
    for name, value in _pairs(text).items():
        match name:
            case "NOTIFY":
                notify = _notify(value.upper())
            case "ORCPT":
                orcpt = _orcpt(value)
            case _:
                raise unknown_parameter(_printable(name))
    return notify, orcpt


def _size(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 20:
        raise bad_parameter("SIZE must be a number of bytes")
    return int(value)


def _body(value: str) -> bool:
    if value == "BINARYMIME":
        raise Refused(Reason.PARAMETER, 555, "5.5.4", "BODY=BINARYMIME is not offered")
    if value not in {"7BIT", "8BITMIME"}:
        raise bad_parameter("BODY must be 7BIT or 8BITMIME")
    return value == "8BITMIME"


def _envid(value: str) -> str:
    if not value or len(value) > MAX_ENVID_BYTES:
        raise bad_parameter(f"ENVID must have 1 to {MAX_ENVID_BYTES} characters")
    return _check_xtext(value, "ENVID")


def _check_xtext(value: str, name: str) -> str:
    try:
        return decode_xtext(value)
    except ValueError as error:
        raise bad_parameter(f"{name} must be xtext (RFC 3461)") from error


def _notify(value: str) -> Notify:
    if value == "NEVER":
        return Notify.NEVER
    notify = Notify.ABSENT
    for word in value.split(","):
        if word not in _NOTIFY:
            raise bad_parameter("NOTIFY must be NEVER, or a list of SUCCESS, FAILURE, DELAY")
        notify |= _NOTIFY[word]
    return notify


def _orcpt(value: str) -> str:
    kind, semicolon, address = value.partition(";")
    if not semicolon or not address or len(value) > MAX_ORCPT_BYTES or not kind.replace("-", "").isalnum():
        raise bad_parameter(
            "ORCPT must be an address type, a semicolon and an address, such as rfc822;user@example.com"
        )
    if kind.lower() == "utf-8":
        return f"utf-8;{_utf8_address(address)}"
    return f"{kind.lower()};{_check_xtext(address, 'ORCPT')}"


def _utf8_address(address: str) -> str:
    """RFC 6533 §3: UTF-8, or escapes such as \\x{E9}."""
    try:
        decoded = _UNITEXT.sub(lambda match: chr(int(match[1], 16)), address)
        decoded.encode()
    except (ValueError, UnicodeEncodeError) as error:
        raise bad_parameter("ORCPT holds no valid UTF-8 address") from error
    if not decoded.isprintable():
        raise bad_parameter("ORCPT holds a control character")
    return decoded


def _printable(name: str) -> str:
    return name if name.isascii() and name.isprintable() and len(name) <= 40 else "given"
