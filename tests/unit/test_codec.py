"""Records as bytes: what goes in comes out, whichever fields are set."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from postrail.core.records import Event, EventType, Finished, MessageId
from postrail.core.replies import Reply, Scope
from postrail.wire.codec import (
    decode_delivery,
    decode_event,
    decode_finished,
    encode_delivery,
    encode_event,
    encode_finished,
)
from tests.support.stage_setting import delivery

REQUIRED: dict[str, Any] = {
    "type": EventType.DELIVERED,
    "at": 1_800_000_000.25,
    "message_id": MessageId("m" * 26),
    "recipients": ("a@rcpt.test", "b@rcpt.test"),
}
OTHERS: dict[str, Any] = {
    "reply": Reply(250, "2.0.0", "ok"),
    "scope": Scope.SITE,
    **{
        field.name: {"str": f"the {field.name}", "int": 7, "float": 0.5}[str(field.type)]
        for field in fields(Event)
        if field.type in {"str", "int", "float"} and field.name not in REQUIRED
    },
}


def test_the_example_has_every_field() -> None:
    assert {*REQUIRED, *OTHERS} == {field.name for field in fields(Event)}


@pytest.mark.parametrize("names", [[], [*OTHERS], *([name] for name in OTHERS)], ids="+".join)
def test_an_event_comes_back_as_it_was(names: list[str]) -> None:
    event = Event(**REQUIRED, **{name: OTHERS[name] for name in names})
    assert decode_event(encode_event(event)) == event


def test_a_delivery_keeps_how_often_it_was_parked() -> None:
    parked = replace(delivery(), parks=3)
    assert decode_delivery(encode_delivery(parked)) == parked


def test_finished_hand_overs_come_back() -> None:
    finished = Finished("outbound.default.gmail.bulk", 7, (3, 1 << 40), ("a.b.1#2", ""))
    assert decode_finished(encode_finished(finished)) == finished
