"""Records as bytes: what goes in comes out, whichever fields are set."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from postrail.core.records import Event, EventType, MessageId
from postrail.core.replies import Reply, Scope
from postrail.wire.codec import decode_event, encode_event

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
