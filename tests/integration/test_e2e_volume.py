"""Many messages and large ones: all arrive, once, as they were."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support.mail_world import PASSWORD, SENDER_DOMAIN, USER, MailWorld
from tests.support.messages import body_of, message
from tests.support.postrail_process import PostrailProcess, send, submitting
from tests.support.processes import wait_for
from tests.support.smtp_tools import smtp_source

SENDER = f"app@{SENDER_DOMAIN}"
LARGE_BYTES = 25 * 1000 * 1000


def test_hundred_messages_of_a_load_generator_arrive_once(world: MailWorld, postrail: PostrailProcess) -> None:
    smtp_source("127.0.0.1", postrail.port("trusted"), SENDER, "load@sink.test", messages=100, sessions=10, size=10_000)

    def arrived() -> list[str]:
        found = [name for one in world.sink.received() for name in one.recipients if name.endswith("load@sink.test")]
        return found if len(found) >= 100 else []

    wait_for("100 messages", arrived)
    postrail.wait_until_empty()
    counts = Counter(arrived())
    assert counts == {f"{number}load@sink.test": 1 for number in range(1, 101)}


def _large_body(seed: int) -> bytes:
    """Lines of printable text of all lengths up to 998, some of which begin with a dot."""
    random_bytes = random.Random(seed).randbytes(1 << 20).translate(bytes(33 + number % 94 for number in range(256)))
    lines, position = [], 0
    while position < len(random_bytes):
        length = (position * 7 + seed) % 998
        lines.append((b"." if position % 3 == 0 else b"") + random_bytes[position : position + length])
        position += length + 1
    block = b"\r\n".join(lines) + b"\r\n"
    return block * (LARGE_BYTES // len(block)) + block[: LARGE_BYTES % len(block)].rpartition(b"\r\n")[0] + b"\r\n"


def test_large_messages_arrive_unchanged(world: MailWorld, postrail: PostrailProcess) -> None:
    bodies = [_large_body(seed) for seed in range(2)]

    def session(number: int) -> None:
        with submitting(postrail, USER, PASSWORD) as client:
            for part in range(2):
                recipient = f"large{number * 2 + part}@sink.test"
                send(client, SENDER, [recipient], message(SENDER, recipient, body=bodies[part]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(session, range(4)))
    postrail.wait_until_empty(60)
    for number in range(8):
        (transaction,) = world.sink.wait_for_mail(f"large{number}@sink.test")
        received = hashlib.sha256(body_of(transaction.message)).hexdigest()
        assert received == hashlib.sha256(bodies[number % 2]).hexdigest()
