"""SPF records (RFC 7208 §4.5, §4.6, §12): which text is one, and what it says.

Owns the syntax. Never asks the DNS and decides nothing about an address: `postrail.core.spf` does. Its neighbour
`postrail.core.spf_macros` reads the names within.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from postrail.core.spf_macros import BadMacro, MacroText, parse, parse_domain

VERSION = "v=spf1"

_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_MECHANISM = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9._-]*)(.*)", re.DOTALL)
_PREFIXES = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?", re.DOTALL)
_ONE_PREFIX = re.compile(r"(.*?)(?:/(0|[1-9][0-9]{0,2}))?", re.DOTALL)


class BadRecord(ValueError):
    """The record breaks the grammar; the message says where."""


class Qualifier(StrEnum):
    PASS = "+"  # noqa: S105  # no password
    FAIL = "-"
    SOFTFAIL = "~"
    NEUTRAL = "?"


class Mechanism(StrEnum):
    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    IP4 = "ip4"
    IP6 = "ip6"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Directive:
    """One mechanism with its qualifier.

    Attributes:
        target: None: the domain of the record.
        network: of IP4 and IP6.
        prefixes: how many bits of an IPv4, an IPv6 address must agree, for A and MX.
    """

    text: str
    qualifier: Qualifier
    mechanism: Mechanism
    target: MacroText | None = None
    network: IPv4Network | IPv6Network | None = None
    prefixes: tuple[int, int] = (32, 128)


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A record that follows the grammar; `redirect` is None where there is none, or where `all` makes it void (§6.1)."""

    text: str
    directives: tuple[Directive, ...]
    redirect: MacroText | None = None


def choose(texts: Iterable[str]) -> list[str]:
    """Those of a domain's TXT records that are SPF records (§4.5); more than one is an error."""
    return [text for text in texts if text.lower() == VERSION or text.lower().startswith(VERSION + " ")]


def parse_record(text: str) -> SpfRecord:
    """What a record says.

    Raises:
        BadRecord: any of its terms is wrong.
    """
    directives: list[Directive] = []
    modifiers: dict[str, MacroText] = {}
    for term in text[len(VERSION) :].split(" "):
        if not term:
            continue
        try:
            modifier = _MODIFIER.fullmatch(term)
            if modifier is None:
                directives.append(_directive(term))
                continue
            name, value = modifier[1].lower(), modifier[2]
            if name in modifiers:
                raise BadRecord(f"{name}= stands twice")
            known = name in ("redirect", "exp")
            content = parse_domain(value) if known else parse(value)
            if known:
                modifiers[name] = content
        except BadMacro as error:
            raise BadRecord(f"{term!r}: {error}") from error
    closed = any(directive.mechanism is Mechanism.ALL for directive in directives)
    return SpfRecord(text, tuple(directives), None if closed else modifiers.get("redirect"))


def authorising(text: str, address: IPv4Address | IPv6Address) -> str:
    """The record with the address allowed, first of all: that costs no look-up; "" makes a new record."""
    rest = text[len(VERSION) :].strip() or "~all"
    return f"{VERSION} ip{address.version}:{address} {rest}"


def _directive(term: str) -> Directive:
    match = _MECHANISM.fullmatch(term)
    if match is None:
        raise BadRecord(f"{term!r} is no mechanism")
    sign, name, rest = match.groups()
    try:
        mechanism = Mechanism(name.lower())
    except ValueError:
        raise BadRecord(f"{term!r}: there is no mechanism {name!r}") from None
    qualifier = Qualifier(sign or "+")
    if mechanism is Mechanism.ALL:
        if rest:
            raise BadRecord(f"{term!r}: nothing may follow all")
        return Directive(term, qualifier, mechanism)
    if mechanism in (Mechanism.IP4, Mechanism.IP6):
        return Directive(term, qualifier, mechanism, network=_network(term, mechanism, rest))
    prefixes = (32, 128)
    if mechanism in (Mechanism.A, Mechanism.MX):
        rest, prefixes = _prefixes(term, rest)
    needs_target = mechanism in (Mechanism.INCLUDE, Mechanism.EXISTS)
    if not rest and not needs_target:
        return Directive(term, qualifier, mechanism, prefixes=prefixes)
    if not rest.startswith(":"):
        raise BadRecord(f"{term!r}: {name} wants a domain name after a colon")
    return Directive(term, qualifier, mechanism, parse_domain(rest[1:]), prefixes=prefixes)


def _prefixes(term: str, rest: str) -> tuple[str, tuple[int, int]]:
    match = _PREFIXES.fullmatch(rest)
    assert match is not None  # its first group takes anything
    prefixes = (_bits(match[2], 32), _bits(match[3], 128))
    if prefixes[0] > 32 or prefixes[1] > 128:
        raise BadRecord(f"{term!r}: more bits than an address has")
    return match[1], prefixes


def _bits(text: str | None, whole: int) -> int:
    return whole if text is None else int(text)


def _network(term: str, mechanism: Mechanism, rest: str) -> IPv4Network | IPv6Network:
    match = _ONE_PREFIX.fullmatch(rest)
    assert match is not None  # its first group takes anything
    if not match[1].startswith(":") or "%" in match[1]:
        raise BadRecord(f"{term!r}: {mechanism} wants an address after a colon")
    try:
        if mechanism is Mechanism.IP4:
            return IPv4Network((IPv4Address(match[1][1:]), _bits(match[2], 32)), strict=False)
        return IPv6Network((IPv6Address(match[1][1:]), _bits(match[2], 128)), strict=False)
    except ValueError as error:
        raise BadRecord(f"{term!r}: {error}") from error
