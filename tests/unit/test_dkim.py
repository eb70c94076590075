"""Canonicalisation, header selection and the layout of DKIM-Signature, against dkimpy's slower ways and the RFC's words."""

from __future__ import annotations

import base64
import hashlib
from itertools import pairwise

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from postrail.core import dkim
from postrail.core.header_block import fields

PIECES = st.lists(
    st.sampled_from([b"a", b"B", b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b"\xc3\xa9", b"."]), max_size=30
)
BODIES = PIECES.map(b"".join)
EMPTY = hashlib.sha256(b"").digest()


def ended(body: bytes) -> bytes:
    return body if body.endswith(b"\r\n") or not body else body + b"\r\n"


@given(BODIES)
def test_canonical_body_is_what_dkimpy_makes_of_what_the_receiver_sees(body: bytes) -> None:
    expected = Relaxed.canonicalize_body(ended(body))
    assert dkim.canonical_body(body) == expected


@given(PIECES.flatmap(lambda pieces: st.tuples(st.just(pieces), st.integers(1, 5))))
def test_pieces_hash_like_the_whole(example: tuple[list[bytes], int]) -> None:
    body, size = b"".join(example[0]), example[1]
    hasher = dkim.BodyHasher()
    for start in range(0, len(body), size):
        hasher.update(body[start : start + size])
    assert hasher.digest() == dkim.body_hash(body)


@given(
    st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r", b"\n", b"\r\n"]), max_size=20).map(b"".join), st.integers(1, 4)
)
def test_bare_line_ends_hash_alike_too(body: bytes, size: int) -> None:
    hasher = dkim.BodyHasher()
    for start in range(0, len(body), size):
        hasher.update(body[start : start + size])
    assert hasher.digest() == dkim.body_hash(body)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \t \r\n", b""),
        (b"a", b"a\r\n"),
        (b"a \r\n\r\n", b"a\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 §3.4.5
        (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"a" + b" " * 100_000 + b"b\r\n", b"a b\r\n"),
    ],
)
def test_canonical_body_by_example(body: bytes, canonical: bytes) -> None:
    assert dkim.canonical_body(body) == canonical
    assert dkim.body_hash(body) == hashlib.sha256(canonical).digest()


def test_many_empty_lines_take_no_memory_and_count_when_content_follows() -> None:
    hasher = dkim.BodyHasher()
    hasher.update(b"a")
    for _ in range(40):
        hasher.update(b"\r\n" * 999)
    assert len(hasher._carry) <= 2
    hasher.update(b"b")
    assert hasher.digest() == hashlib.sha256(b"a" + b"\r\n" * 999 * 40 + b"b\r\n").digest()


def test_nothing_but_empty_lines_is_an_empty_body() -> None:
    hasher = dkim.BodyHasher()
    hasher.update(b"\r\n \r")
    hasher.update(b"\n")
    assert hasher.digest() == EMPTY


def test_canonical_field_by_the_rfcs_example() -> None:
    assert dkim.canonical_field(b"A: X\r\n") == b"a:X\r\n"
    assert dkim.canonical_field(b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z\r\n"
    assert dkim.canonical_field(b"Empty:\r\n") == b"empty:\r\n"


@given(
    st.lists(
        st.sampled_from([b"a", b":", b" ", b"\t", b"\r\n ", b"\r\n\t", b"\xc3", b"=?utf-8?q?x?="]), max_size=12
    ).map(b"".join)
)
def test_canonical_field_is_what_dkimpy_makes_of_it(value: bytes) -> None:
    ((name, expected),) = Relaxed.canonicalize_headers([(b"Subject ", value + b"\r\n")])
    assert dkim.canonical_field(b"Subject :" + value + b"\r\n") == name + b":" + expected


def header(block: bytes) -> dkim.HeaderDigest:
    return dkim.HeaderDigest(fields(block))


def test_every_signed_field_is_listed_once_more_than_it_occurs() -> None:
    names = header(b"From: a@example.com\r\nTo: b@example.net\r\nSubject: x\r\nSubject: y\r\nX-Other: z\r\n").names
    assert names.count(b"from") == 2
    assert names.count(b"to") == 2
    assert names.count(b"subject") == 3
    assert names.count(b"reply-to") == 1
    assert b"x-other" not in names
    assert b"list-unsubscribe" not in names


def test_list_fields_are_signed_where_there_are_any() -> None:
    names = header(b"From: a@example.com\r\nList-Unsubscribe: <https://x>\r\nList-Unsubscribe-Post: y\r\n").names
    assert names.count(b"list-unsubscribe") == 2
    assert names.count(b"list-unsubscribe-post") == 2


def test_the_last_of_a_name_is_hashed_first() -> None:
    mine = header(b"From: a@example.com\r\nSubject: first\r\nSubject:  last \r\n")
    unsigned = mine.unsigned_field(b"rsa-sha256", b"example.com", b"s1", 1_700_000_000, EMPTY)
    text = b"from:a@example.com\r\nsubject:last\r\nsubject:first\r\n" + dkim.canonical_field(unsigned)[:-2]
    assert mine.digest(unsigned) == hashlib.sha256(text).digest()


def test_a_repeated_list_field_is_signed_as_often_as_it_occurs() -> None:
    mine = header(b"From: a@example.com\r\nReferences: <1@x>\r\nReferences: <2@x>\r\n")
    assert mine.names.count(b"references") == 3
    unsigned = mine.unsigned_field(b"rsa-sha256", b"example.com", b"s1", 1_700_000_000, EMPTY)
    text = b"from:a@example.com\r\nreferences:<2@x>\r\nreferences:<1@x>\r\n" + dkim.canonical_field(unsigned)[:-2]
    assert mine.digest(unsigned) == hashlib.sha256(text).digest()


def test_the_field_has_all_tags_and_short_lines() -> None:
    unsigned = header(b"From: a@example.com\r\n").unsigned_field(
        b"rsa-sha256", b"example.com", b"s1", 1_700_000_000, EMPTY
    )
    field = dkim.signed_field(unsigned, bytes(range(256)))
    assert field.startswith(
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com;\r\n s=s1; t=1700000000;"
    )
    assert b"bh=" + base64.b64encode(EMPTY) in field
    lines = field.split(b"\r\n")
    assert lines[-1] == b""
    assert max(len(line) for line in lines) <= 78
    assert all(following.startswith(b" ") for _, following in pairwise(lines[:-1]))
    (only,) = fields(field)
    tags = dict(tag.strip().split(b"=", 1) for tag in only.value.split(b";"))
    assert base64.b64decode(tags[b"b"].replace(b" ", b"")) == bytes(range(256))
