"""`postrail trace` and `postrail queue`: what a person reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postrail.cli import stores, trace
from postrail.core.records import Event, EventType, MessageId
from postrail.core.replies import Reply, Scope

ACCEPTED = Event(
    EventType.ACCEPTED,
    1_700_000_000.0,
    MessageId("01hf7yat00000000000000000a"),
    ("a@example.net", "b@example.org"),
    submitter="shop",
    stream="transactional",
    header_message_id="1@shop.example",
    reverse_path="orders@shop.example",
    size_bytes=10_240,
)
ROUTED = replace(
    ACCEPTED,
    type=EventType.ROUTED,
    at=ACCEPTED.at + 0.5,
    recipients=("a@example.net",),
    site="mx.example.net",
    group="default",
    pool="default",
    source_address="192.0.2.10",
)
DEFERRED = replace(
    ROUTED,
    type=EventType.DEFERRED,
    at=ACCEPTED.at + 1,
    attempt=1,
    reply=Reply(450, "4.2.0", "greylisted"),
    scope=Scope.RECIPIENT,
    mx_host="mx.example.net",
    mx_address="198.51.100.7",
    due_at=ACCEPTED.at + 301,
)
DELIVERED = replace(
    DEFERRED,
    type=EventType.DELIVERED,
    at=ACCEPTED.at + 302,
    attempt=2,
    reply=Reply(250, "2.0.0", "ok"),
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
    duration_seconds=0.25,
    due_at=0.0,
)


def test_a_story_goes_recipient_by_recipient() -> None:
    lines = list(trace.tell([ACCEPTED, ROUTED, DEFERRED, DELIVERED]))
    assert lines == [
        "message 01hf7yat00000000000000000a  <1@shop.example>",
        "  from <orders@shop.example>, submitted by shop, stream transactional, 10,240 bytes",
        "  to <a@example.net>: delivered",
        "    2023-11-14 22:13:20Z  +0.00 s   accepted",
        "    2023-11-14 22:13:20Z  +0.50 s   routed to site mx.example.net (group default, pool default) from 192.0.2.10",
        (
            "    2023-11-14 22:13:21Z  +1.00 s   deferred: 450 4.2.0 greylisted (attempt 1, mx.example.net [198.51.100.7], "
            "from 192.0.2.10, in clear); next attempt at 2023-11-14 22:18:21Z"
        ),
        (
            "    2023-11-14 22:18:22Z  +5 min    delivered: 250 2.0.0 ok (attempt 2, mx.example.net [198.51.100.7], "
            "from 192.0.2.10, TLSv1.3 TLS_AES_256_GCM_SHA384, took 0.25 s)"
        ),
        "  to <b@example.org>: under way",
        "    2023-11-14 22:13:20Z  +0.00 s   accepted",
    ]


def test_a_waiting_recipient_says_until_when() -> None:
    lines = list(trace.tell([replace(ACCEPTED, recipients=("a@example.net",)), DEFERRED]))
    assert "  to <a@example.net>: waits until 2023-11-14 22:18:21Z" in lines


def test_json_leaves_out_what_is_unknown() -> None:
    row = trace.as_json(DEFERRED)
    assert row["type"] == "deferred"
    assert row["reply"] == "450 4.2.0 greylisted"
    assert "tls" not in row


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.12 s"), (45, "45 s"), (300, "5 min"), (12_600, "3.5 h"), (200_000, "2.3 d")]
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert stores.duration(seconds) == text


def test_tables_align() -> None:
    assert stores.table(("a", "b"), [("long cell", "x"), ("y", "z")]) == "a          b\nlong cell  x\ny          z"
