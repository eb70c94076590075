"""Names of the topics, in one place.

Every mail topic has two lanes, each a topic of its own: `accepted.urgent` and `accepted.bulk`. Outbound topics are
`outbound.<pool>.<destination group>.<lane>`, each pair with one `outcomes.<pool>.<destination group>`; deferral tiers
`deferred.<seconds>s`. How a topic is laid out and kept on Kafka is `topic_specs`.
"""

from __future__ import annotations

from postrail.core.records import Lane

EVENTS = "events"
FEEDBACK = "feedback"
DEAD_LETTERS = "dead-letters"

ACCEPTED = "accepted"
ASIDE = "aside"
"""Accepted messages that wait for a key to be signed with, where many do."""
SIGNED = "signed"
DUE = "due"
_DEFERRED = "deferred"
_OUTBOUND = "outbound."
_OUTCOMES = "outcomes."

_SUFFIX = {Lane.URGENT: ".urgent", Lane.BULK: ".bulk"}


def laned(base: str, lane: Lane) -> str:
    """The topic of one lane of a mail topic."""
    return base + _SUFFIX[lane]


def lanes(base: str) -> tuple[str, str]:
    """Both topics of a mail topic, urgent first."""
    return (base + ".urgent", base + ".bulk")


def outbound(pool: str, group: str) -> str:
    """The base name of a sender's topic; laned."""
    return f"{_OUTBOUND}{pool}.{group}"


def outcomes(pool: str, group: str) -> str:
    """The topic in which a sender records what it has finished, where the log is not atomic; not laned."""
    return f"{_OUTCOMES}{pool}.{group}"


def deferred(tier_seconds: float) -> str:
    """The topic of one retry tier; not laned, because it is read in due order."""
    return f"{_DEFERRED}.{tier_seconds:g}s"


def tier_of(topic: str) -> float | None:
    """The seconds of a retry tier's topic; None for any other topic."""
    kind, _, tier = topic.partition(".")
    return float(tier[:-1]) if kind == _DEFERRED else None


def base_of(topic: str) -> str:
    """A topic's name without its lane."""
    return topic.removesuffix(_SUFFIX[Lane.URGENT]).removesuffix(_SUFFIX[Lane.BULK])


def owner_of(topic: str) -> str:
    """The base name whose partitions a topic shares: that of its lanes; of outcomes, the outbound topic's."""
    base = base_of(topic)
    return _OUTBOUND + base[len(_OUTCOMES) :] if base.startswith(_OUTCOMES) else base


def is_outbound(topic: str) -> bool:
    """Whether a sender reads it."""
    return topic.startswith(_OUTBOUND)


def reader_of(topic: str) -> str | None:
    """The group that finishes a topic's records; None where nobody does (events, outcomes)."""
    base = base_of(topic)
    if is_outbound(topic):
        return "sender." + base[len(_OUTBOUND) :]
    return "scheduler" if base.startswith(f"{_DEFERRED}.") else _READERS.get(base)


_READERS = {
    ACCEPTED: "signing",
    ASIDE: "signing",
    SIGNED: "routing",
    DUE: "routing",
    DEAD_LETTERS: "reinjection",
}


def holds_mail(topic: str) -> bool:
    """Whether a record of it that is not finished is mail under way, dead letters included."""
    return reader_of(topic) is not None
