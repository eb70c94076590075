"""The dead letter: a record that cannot be processed, as it goes to the topic that a person looks at.

Owns what is written there. `postrail.cli.dead_letters` shows it and puts it back; stages, scheduler and senders decide what goes.
"""

from __future__ import annotations

from postrail.core.records import DeadLetter
from postrail.core.topics import DEAD_LETTERS
from postrail.log.interface import Append, Record
from postrail.wire.codec import encode_dead_letter

REASON_CHARACTERS = 2000
"""An exception's text may quote the whole record; with all of it the dead letter could be larger than a record may be."""


def dead_letter(record: Record, stage: str, error: Exception, tries: int, failed_at: float) -> Append:
    """The record with the reason, its body and its key.

    Args:
        stage: who could not process it.
        failed_at: Unix seconds.
    """
    reason = f"{type(error).__name__}: {error}"
    if len(reason) > REASON_CHARACTERS:
        reason = reason[: REASON_CHARACTERS - 1] + "…"
    letter = DeadLetter(
        record.topic, record.partition, record.offset, record.key, record.value, stage, reason, failed_at, tries
    )
    return Append(DEAD_LETTERS, record.key, encode_dead_letter(letter), record.body)
