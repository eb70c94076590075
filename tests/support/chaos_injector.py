"""The injector: submits without end over several SMTP sessions, through crashes, and tells the ledger what got a 250.

A message is offered once and never again, whatever became of it, so that one which got no 250 may appear at most once. Owns
the client's side of the dialogue on a trusted listener and the making of messages; expects nothing.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from postrail.demo.ledger import FIELD, Ledger, body_digest
from tests.support.chaos_session import Session

PIECE_BYTES = 8 << 10
SENDER = "ship@shop.example"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to be submitted; `content` has CRLF line ends and no dots doubled."""

    ledger_id: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(slots=True)
class Injector:
    """Several sessions at a time.

    Attributes:
        domains: where recipients are.
        sizes_bytes: one is chosen for the body of each message.
        pause_seconds: the longest pause of a session between two messages.
        lost_in: connections that were lost, by where the session stood: "command", "content" (between 354 and the final
            dot), "dot" (the final dot was sent, its reply has not come).
        refused: replies other than 2yz and 3yz, by their first nine characters.
        accepted: what got a 250, by ledger id.
        unconfirmed: ledger ids of messages that were offered and got no 250.
    """

    port: int
    ledger: Ledger
    domains: Sequence[str]
    sizes_bytes: Sequence[int] = (200, 3000, 12_000, 60_000)
    max_recipients: int = 3
    pause_seconds: float = 0.01
    lost_in: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, Letter] = field(default_factory=dict)
    unconfirmed: list[str] = field(default_factory=list)
    _number: int = 0
    _target: float = 0

    async def run(self, sessions: int = 4) -> None:
        """Submit until `stop` is called."""
        await self._run(sessions, math.inf)

    def stop(self) -> None:
        """Let each session finish the message that it has begun."""
        self._target = 0

    async def submit(self, count: int, sessions: int = 4) -> None:
        """Submit until so many more messages are accepted."""
        await self._run(sessions, len(self.accepted) + count)

    async def _run(self, sessions: int, target: float) -> None:
        self._target = target
        async with asyncio.TaskGroup() as group:
            for _ in range(sessions):
                group.create_task(self._work())

    async def send(self, letter: Letter) -> str:
        """One letter over a connection of its own; returns the reply to the final dot, or "" when the connection was lost."""
        session = await _Session.open(self.port)
        try:
            return await self._offer(session, letter)
        except (OSError, EOFError):
            return ""
        finally:
            session.close()

    async def _work(self) -> None:
        session: _Session | None = None
        try:
            while len(self.accepted) < self._target:
                if session is None:
                    try:
                        session = await _Session.open(self.port)
                    except (OSError, EOFError):
                        await asyncio.sleep(0.01)
                        continue
                try:
                    reply = await self._offer(session, self.letter())
                except (OSError, EOFError):
                    self.lost_in[session.phase] += 1
                    session.close()
                    session = None
                    continue
                if not reply.startswith("250"):
                    if reply.startswith("421"):
                        session.close()
                        session = None
                    await asyncio.sleep(0.1)
                await asyncio.sleep(random.uniform(0, self.pause_seconds))
        finally:
            if session is not None:
                session.close()

    async def _offer(self, session: _Session, letter: Letter) -> str:
        self.ledger.offered(letter.ledger_id, body_digest(letter.content))
        self.unconfirmed.append(letter.ledger_id)
        reply = await session.send(letter)
        if reply.startswith("250"):
            self.unconfirmed.remove(letter.ledger_id)
            self.accepted[letter.ledger_id] = letter
            for recipient in letter.recipients:
                self.ledger.submitted(letter.ledger_id, recipient, body_digest(letter.content))
        else:
            self.refused[reply[:9]] += 1
        return reply

    def letter(self, *domains: str, size_bytes: int = 0) -> Letter:
        """A new letter: to one recipient at each of these domains, otherwise to a few at random ones."""
        self._number += 1
        ledger_id = f"letter-{self._number}"
        where = domains or random.choices(self.domains, k=random.randint(1, self.max_recipients))
        recipients = tuple(f"{ledger_id}.{index}@{domain}" for index, domain in enumerate(where))
        header = (
            f"From: <{SENDER}>\r\nTo: {', '.join(f'<{one}>' for one in recipients)}\r\nSubject: {ledger_id}\r\n"
        ).encode() + b"%s: %s\r\n" % (FIELD, ledger_id.encode())
        return Letter(ledger_id, recipients, header + b"\r\n" + _body(size_bytes or random.choice(self.sizes_bytes)))


def _body(size_bytes: int) -> bytes:
    """Lines of random text, some of them with leading dots."""
    text = random.randbytes(size_bytes // 2).hex()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    lines[::7] = [f".{line}" for line in lines[::7]]
    return "\r\n".join([*lines, ".", "..", "end"]).encode() + b"\r\n"


class _Session(Session):
    NAME = "injector.shop.example"

    async def send(self, letter: Letter) -> str:
        """Submit; returns the reply that decided."""
        return await self.submit(SENDER, letter.recipients, letter.content)

    async def _content(self, content: bytes) -> None:
        """In pieces, with pauses between some, so that a kill can hit between any two."""
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        for start in range(0, len(stuffed), PIECE_BYTES):
            self._writer.write(stuffed[start : start + PIECE_BYTES])
            await self._writer.drain()
            await asyncio.sleep(random.choice((0, 0, 0.005, 0.02)))
