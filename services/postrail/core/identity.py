"""Ids: of messages, made by ingress, and of deliveries, by which repeats are recognised."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from postrail.core.records import Delivery, DeliveryId, MessageId, Recipient

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_OF_BYTE = bytes(ord(_ALPHABET[value & 31]) for value in range(256))
MESSAGE_ID_LENGTH = 26
RANDOM_CHARACTERS = 16
RANDOM_BYTES = 10
TIME_CHARACTERS = 10
GROUP_CHARACTERS = 4
"""So many of the random characters, the first, are the same for messages that come in together (`group_of`)."""


def new_message_id(now: float, randomness: bytes) -> MessageId:
    """A message id that sorts by time: 48 bits of milliseconds, 80 bits of randomness, as 26 base-32 characters.

    Args:
        now: Unix time in seconds.
        randomness: 10 bytes.
    """
    value = (int(now * 1000) << 80) | int.from_bytes(randomness, "big")
    return MessageId("".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)]))


def random_characters(randomness: bytes) -> str:
    """One base-32 character for each byte: what `message_id` takes 16 of."""
    return randomness.translate(_OF_BYTE).decode("ascii")


def message_id(now: float, characters: str) -> MessageId:
    """As `new_message_id`, from 16 of `random_characters`: cheaper where many are made."""
    return MessageId(_time_characters(int(now * 1000)) + characters)


@lru_cache(maxsize=16)
def _time_characters(unix_milliseconds: int) -> str:
    return "".join([_PAIRS[(unix_milliseconds >> shift) & 1023] for shift in (40, 30, 20, 10, 0)])


def is_message_id(text: str) -> bool:
    """Whether the text has the form of a message id."""
    return len(text) == MESSAGE_ID_LENGTH and all(character in _ALPHABET for character in text)


def group_of(key: bytes) -> bytes:
    """What picks the partition of a record's key: of a message id the characters that it shares with messages that came in
    together, so that they stay together, and a batch is one of a few partitions; of other keys all of it."""
    if len(key) == MESSAGE_ID_LENGTH and b"|" not in key:
        return key[TIME_CHARACTERS : TIME_CHARACTERS + GROUP_CHARACTERS]
    return key


def notice_id(of: DeliveryId, action: str, recipients: Iterable[str], received_at: float) -> MessageId:
    """The id of a notification: the same each time that the same is told of a delivery, so that a repeat is recognised.

    Args:
        of: the delivery that the notification is about.
        action: what is told of `recipients`.
        received_at: when the message that it is about was received, Unix seconds; the notification sorts beside it.
    """
    digest = blake2b(f"{of}\n{action}\n".encode(), digest_size=RANDOM_BYTES)
    for address in sorted(recipients):
        digest.update(address.encode())
        digest.update(b"\n")
    return new_message_id(received_at, digest.digest())


def hand_over(delivery: Delivery) -> str:
    """The name of one hand-over of a delivery to a sender: a record with the same name is a repeat of it."""
    return f"{delivery.delivery_id}#{delivery.parks}" if delivery.parks else delivery.delivery_id


def settlement(message_id: str, address: str) -> str:
    """The name of a recipient's end: delivered or returned. It differs from every `hand_over`."""
    return f"{message_id}:{address}"


def made_at(message_id: str) -> float:
    """When a message with this id was received, in Unix seconds; for one that `is_message_id`."""
    value = 0
    for character in message_id[:TIME_CHARACTERS]:
        value = value << 5 | _ALPHABET.index(character)
    return value / 1000.0


def delivery_id(message_id: MessageId, recipients: Iterable[Recipient], attempt: int) -> DeliveryId:
    """Message id + recipient set + attempt (the first attempt is 1)."""
    digest = blake2b(digest_size=6)
    for address in sorted(recipient.address for recipient in recipients):
        digest.update(address.encode())
        digest.update(b"\n")
    return DeliveryId(f"{message_id}.{digest.hexdigest()}.{attempt}")


def blob_name(message_id: MessageId, body_sha256: bytes) -> str:
    """The name in the blob store of a body that came inline: whoever stores it again, after a crash, replaces it by itself."""
    name = blake2b(message_id.encode() + body_sha256, digest_size=16).hexdigest()
    return f"{name[:2]}/{name}"
