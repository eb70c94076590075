"""DKIM signatures without the keys: canonical forms, which header fields are signed, the DKIM-Signature field itself.

Owns the `relaxed/relaxed` canonicalisation (RFC 6376 §3.4.2, §3.4.4), the choice of fields (§5.4) and the layout of the
field (§3.5). Never sees a private key and never reads a clock. Neighbours: `postrail.core.header_block` (the fields),
`postrail.signing.keys` (turns a digest into a signature).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache

from postrail.core.header_block import Field

CRLF = b"\r\n"

ALWAYS_OVERSIGNED = (
    b"from",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
"""Signed once more often than they occur, so that none can be added, even where there was none (RFC 6376 §8.15)."""

OVERSIGNED_WHEN_PRESENT = frozenset(
    {
        b"sender",
        b"in-reply-to",
        b"references",
        b"feedback-id",
        b"auto-submitted",
        b"list-id",
        b"list-help",
        b"list-unsubscribe",
        b"list-unsubscribe-post",
        b"list-subscribe",
        b"list-post",
        b"list-owner",
        b"list-archive",
    }
)
"""The same, but only where there is one: a mailing list may add its own to a message that has none."""

_NOT_CHOSEN: dict[bytes, list[bytes] | None] = dict.fromkeys(ALWAYS_OVERSIGNED)
_LINE_BYTES = 76
_GAP = b"\r\n" * 4096


def canonical_body(body: bytes) -> bytes:
    """The `relaxed` form of a whole body; b"" for one of nothing but white space (RFC 6376 §3.4.4)."""
    body = _reduced(body)
    end = len(body)
    if body.endswith(b" "):
        end -= 1
    while body.endswith(CRLF, 0, end):
        end -= 2
    return body[:end] + CRLF if end else b""


def _reduced(text: bytes) -> bytes:
    """White space runs become one space and vanish before CRLF. No regular expression: most bodies need no change, and
    in base64 there is not one space, which is seen several times as fast as that there are no two."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    if b" " not in text:
        return text
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    if b" \r\n" in text:
        text = text.replace(b" \r\n", CRLF)
    return text


def body_hash(body: bytes) -> bytes:
    """SHA-256 of the canonical body, for `bh=`: 32 bytes."""
    return hashlib.sha256(canonical_body(body)).digest()


class BodyHasher:
    """`body_hash` of a body that comes in pieces, in memory bounded by the size of a piece."""

    __slots__ = ("_carry", "_empty_lines", "_hash")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._carry = b""  # the end of what came: white space of which the next piece decides what it becomes
        self._empty_lines = 0  # line ends before the carry that are not hashed yet
        # `_carry` never ends in anything but white space and line ends, so what was hashed ends in content.

    def update(self, piece: bytes) -> None:
        """Take the next piece; any size, cut anywhere."""
        text = self._carry + piece
        content = text.rstrip(b" \t\r\n")
        if content:
            self._flush_lines()
            self._hash.update(_reduced(content))
        tail = _reduced(text[len(content) :])
        whole = tail.rfind(CRLF) + 2 if CRLF in tail else 0
        if tail[:whole] == CRLF * (whole // 2):
            self._empty_lines += whole // 2
            tail = tail[whole:]
        self._carry = tail

    def digest(self) -> bytes:
        """The hash of everything; call once."""
        rest = canonical_body(self._carry)
        if rest:  # a bare CR or LF in the carry is content
            self._flush_lines()
            self._hash.update(rest)
        elif self._hash.digest() != _NOTHING:
            self._hash.update(CRLF)
        return self._hash.digest()

    def _flush_lines(self) -> None:
        per_gap = len(_GAP) // 2
        while self._empty_lines > per_gap:
            self._hash.update(_GAP)
            self._empty_lines -= per_gap
        self._hash.update(CRLF * self._empty_lines)
        self._empty_lines = 0


_NOTHING = hashlib.sha256().digest()


def canonical_field(raw: bytes) -> bytes:
    """The `relaxed` form of one field, CRLF included (RFC 6376 §3.4.2)."""
    name = raw.partition(b":")[0]
    return _canonical(name.rstrip(b" \t").lower(), raw)


def _canonical(name: bytes, raw: bytes) -> bytes:
    """`canonical_field` where the canonical name is known."""
    value = raw[raw.find(b":") + 1 :].replace(CRLF, b"")
    if b"\t" in value:
        value = value.replace(b"\t", b" ")
    while b"  " in value:
        value = value.replace(b"  ", b" ")
    return b"%b:%b\r\n" % (name, value.strip(b" "))


class HeaderDigest:
    """The signed fields of one message: their hash so far, and the `h=` tag that lists them. One serves all keys."""

    __slots__ = ("_hash", "names")

    def __init__(self, fields: Sequence[Field]) -> None:
        """Choose among the fields of a message, in order of appearance (RFC 6376 §5.4.2: the last of a name first)."""
        chosen = dict(_NOT_CHOSEN)
        for name, raw in fields:
            found = chosen.get(name)
            if found is not None:
                found.append(_canonical(name, raw))
            elif name in chosen or name in OVERSIGNED_WHEN_PRESENT:
                chosen[name] = [_canonical(name, raw)]
        names: list[bytes] = []
        canonical: list[bytes] = []
        for name, found in chosen.items():
            names.append(name)
            if found is not None:
                names += [name] * len(found)
                canonical += reversed(found)
        self.names = tuple(names)
        self._hash = hashlib.sha256(b"".join(canonical))

    def unsigned_field(
        self, algorithm: bytes, domain: bytes, selector: bytes, signed_at: int, body_digest: bytes
    ) -> bytes:
        """The DKIM-Signature field up to and including `b=`.

        Args:
            algorithm: b"rsa-sha256" or b"ed25519-sha256".
            domain: the signing domain, in A-labels.
            selector: likewise.
            signed_at: Unix time in seconds, for `t=`.
            body_digest: from `body_hash`.
        """
        return b"DKIM-Signature: v=1; a=%b; c=relaxed/relaxed; d=%b;\r\n s=%b; t=%d;\r\n h=%b;\r\n bh=%b;\r\n b=" % (
            algorithm,
            domain,
            selector,
            signed_at,
            _folded_names(self.names),
            b64encode(body_digest),
        )

    def digest(self, unsigned: bytes) -> bytes:
        """What is signed: SHA-256 of the chosen fields and of the field itself without its signature (RFC 6376 §3.7)."""
        hasher = self._hash.copy()
        hasher.update(canonical_field(unsigned)[:-2])
        return hasher.digest()


def signed_field(unsigned: bytes, signature: bytes) -> bytes:
    """The whole DKIM-Signature field, folded, CRLF included."""
    encoded = b64encode(signature)
    lines = [encoded[start : start + _LINE_BYTES - 1] for start in range(0, len(encoded), _LINE_BYTES - 1)]
    return unsigned + b"\r\n ".join(lines if len(lines) == 1 else [b"", *lines]) + CRLF


@lru_cache(maxsize=1024)
def _folded_names(names: tuple[bytes, ...]) -> bytes:
    """The value of `h=`, lines of at most 76 bytes."""
    lines: list[bytes] = []
    line = b" h="
    for index, name in enumerate(names):
        piece = name if index == len(names) - 1 else name + b":"
        if len(line) + len(piece) > _LINE_BYTES:
            lines.append(line)
            line = b" "
        line += piece
    lines.append(line)
    return CRLF.join(lines)[len(b" h=") :]
