"""Lets a decision of the core that asks the DNS ask a table instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordAnswer

T = TypeVar("T")
Table = Mapping[str, Sequence[str] | DnsStatus]
"""`KIND name` → the values, or how the look-up ends; what is missing does not exist."""


def decide(asking: Asking[T], table: Table) -> T:
    """The decision."""
    try:
        question = next(asking)
        while True:
            question = asking.send(_answer(question, table))
    except StopIteration as decided:
        result: T = decided.value
        return result


def _answer(question: Question, table: Table) -> RecordAnswer:
    name = f"{question.kind} {question.name}"
    found = table.get(name, DnsStatus.NXDOMAIN)
    if isinstance(found, DnsStatus):
        return RecordAnswer(found, detail=f"{name}: {found}")
    return RecordAnswer(DnsStatus.FOUND, tuple(found))
