"""Macros of SPF records (RFC 7208 §7): reading them, and putting values in their place.

Owns the syntax of a domain-spec. Never asks the DNS: `postrail.core.spf` brings the values, `postrail.core.spf_record` reads the
rest of a record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

MAX_NAME_BYTES = 253

_TOKEN = re.compile(r"%\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\}|%([%_-])|([\x21-\x24\x26-\x7e]+)")
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
_TOP_LABEL = re.compile(r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?$")


class BadMacro(ValueError):
    """It does not follow the grammar; the message says where."""


@dataclass(frozen=True, slots=True)
class Macro:
    """`%{letter digits r delimiters}`; `parts` is 0 where all parts stay."""

    letter: str
    parts: int = 0
    reverse: bool = False
    delimiters: str = "."


MacroText = tuple[Macro | str, ...]


def parse(text: str) -> MacroText:
    """A macro-string.

    Raises:
        BadMacro: it is none.
    """
    found: list[Macro | str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise BadMacro(f"{text!r} is no macro-string at {text[position:][:10]!r}")
        letter, digits, reverse, delimiters, escape, literal = match.groups()
        if letter:
            found.append(_macro(text, letter, digits, delimiters or ".", reverse=bool(reverse)))
        else:
            found.append(literal or _ESCAPES[escape])
        position = match.end()
    return tuple(found)


def parse_domain(text: str) -> MacroText:
    """A domain-spec: a macro-string that ends with a macro or with a top label.

    Raises:
        BadMacro: it is none.
    """
    found = parse(text)
    if not found or not ((text.endswith("}") and isinstance(found[-1], Macro)) or _TOP_LABEL.search(text)):
        raise BadMacro(f"{text!r} is no domain name")
    return found


def letters(text: MacroText) -> frozenset[str]:
    """The values that it needs, lower case."""
    return frozenset(part.letter.lower() for part in text if isinstance(part, Macro))


def expand(text: MacroText, values: Mapping[str, str]) -> str:
    """The name; where it is too long, labels are dropped from the left (§7.3)."""
    name = "".join(part if isinstance(part, str) else _value(part, values) for part in text).removesuffix(".")
    while len(name) > MAX_NAME_BYTES:
        name = name.partition(".")[2]
    return name


def dotted(address: IPv4Address | IPv6Address) -> str:
    """The value of `i`: IPv6 as nibbles."""
    return str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))


def _macro(text: str, letter: str, digits: str, delimiters: str, *, reverse: bool) -> Macro:
    if letter.lower() not in "slodiphv":
        raise BadMacro(f"{text!r} has the macro letter {letter!r}, which a domain name cannot have")
    if digits and not int(digits):
        raise BadMacro(f"{text!r} keeps no part of %{{{letter}}}")
    return Macro(letter, int(digits or 0), reverse, delimiters)


def _value(macro: Macro, values: Mapping[str, str]) -> str:
    parts = re.split(f"[{re.escape(macro.delimiters)}]", values[macro.letter.lower()])
    if macro.reverse:
        parts.reverse()
    value = ".".join(parts[-macro.parts :] if macro.parts else parts)
    return quote(value, safe="-._~") if macro.letter.isupper() else value
