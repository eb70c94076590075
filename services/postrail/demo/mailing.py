"""The mailing: personalised messages of a shop to its customers, different in recipient, subject and text.

Owns the texts and who gets one. Deterministic: the same seed makes the same mailing, except for the dates.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256

from postrail.demo.habits import FULL_PREFIX, UNKNOWN_PREFIX
from postrail.demo.ledger import FIELD
from postrail.demo.world import SENDER_DOMAIN, Place

_FIRST = (
    "Ada",
    "Björn",
    "Chloé",
    "Dmitri",
    "Elif",
    "Farah",
    "Goran",
    "Hana",
    "Inés",
    "Jonas",
    "Kenji",
    "Lena",
    "Mara",
    "Noor",
)
_LAST = (
    "Novak",
    "Okafor",
    "Petrov",
    "Quispe",
    "Rossi",
    "Sato",
    "Tamm",
    "Usman",
    "Vega",
    "Weber",
    "Xu",
    "Yilmaz",
    "Zhang",
)
_ITEMS = (
    "walnut desk",
    "linen shirt",
    "copper kettle",
    "road bike",
    "reading lamp",
    "oak shelf",
    "wool scarf",
    "camp stove",
)
_STEPS = ("was packed", "left our house", "is with the carrier", "will reach you tomorrow", "waits for you at the desk")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message, ready to be submitted: content with CRLF line ends, not dot-stuffed."""

    ledger_id: str
    sender: str
    recipient: str
    content: bytes
    body_sha256: bytes


def letters(count: int, places: tuple[Place, ...], seed: int) -> Iterator[Letter]:
    """The mailing, message by message."""
    chance = random.Random(seed)
    shares = [place.share for place in places]
    for number in range(count):
        place = chance.choices(places, shares)[0]
        yield _letter(number, place, chance, seed)


def _letter(number: int, place: Place, chance: random.Random, seed: int) -> Letter:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    roll = chance.random()
    local = f"customer.{number:06d}"
    if roll < place.unknown_share:
        local = f"{UNKNOWN_PREFIX}.{number:06d}"
    elif roll < place.unknown_share + place.full_share:
        local = f"{FULL_PREFIX}.{number:06d}"
    recipient = f"{local}@{place.domain}"
    item, step, order = chance.choice(_ITEMS), chance.choice(_STEPS), f"{chance.randrange(10**8):08d}"
    ledger_id = f"demo-{seed}-{number:06d}"
    boundary = f"=_shop_{seed}_{number:06d}"
    head = (
        f'From: "Shop" <orders@{SENDER_DOMAIN}>\r\nTo: <{recipient}>\r\n'
        f"Subject: Your {item} {step} (order {order})\r\nDate: {formatdate()}\r\n"
        f"Message-ID: <{ledger_id}@{SENDER_DOMAIN}>\r\n{FIELD.decode()}: {ledger_id}\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'
    )
    notes = [
        f"Note {index}: {chance.choice(_ITEMS)} and {chance.choice(_ITEMS)} go well together." for index in range(20)
    ]
    text = [
        f"Dear {first} {last},",
        "",
        f"your {item} {step}.",
        "",
        f".Order number: {order}",
        "",
        *notes,
        "",
        "Your shop",
    ]
    paragraphs = "\r\n".join(f"<p>{line}</p>" for line in text if line)
    body = (
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + "\r\n".join(text)
        + f"\r\n--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        f"<!doctype html>\r\n<html><body>\r\n{paragraphs}\r\n</body></html>\r\n--{boundary}--\r\n"
    ).encode()
    return Letter(
        ledger_id, f"orders@{SENDER_DOMAIN}", recipient, head.encode() + b"\r\n" + body, sha256(body).digest()
    )
