"""Faults 4, 17, 18, 19 and 22: receivers that say nothing, not now, or something else to each; the whole system, the ledger.

The sender's own view of each is in test_sender_dialogue and test_sender_tls; here mail is submitted, signed, routed, tried,
kept and tried again, and what counts is how many copies arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from postrail.core.records import EventType
from postrail.demo.receivers import HANG, TAKE_AND_CLOSE, TAKE_AND_HANG, Behaviour, Received, Session
from tests.support.fault_configuration import SENDER
from tests.support.fault_world import FaultWorld, Place, fault_world
from tests.support.messages import read_report
from tests.support.scripted_smtp import scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[FaultWorld]:
    async with fault_world() as running:
        yield running


class SilentDot(Behaviour):
    """Treats the first message in its own way, and takes the others."""

    def __init__(self, first: str) -> None:
        self.first: str | None = first
        self.contents = 0

    def content(self, session: Session, content: bytes) -> str | None:
        self.contents += 1
        first, self.first = self.first, None
        return first


@pytest.mark.parametrize(("dot", "copies"), [(HANG, 1), (TAKE_AND_HANG, 2), (TAKE_AND_CLOSE, 2)])
async def test_an_unanswered_dot_is_tried_once_more_and_logged_as_ambiguous(
    world: FaultWorld, dot: str, copies: int
) -> None:
    behaviour = SilentDot(dot)
    place = await world.place(behaviour)
    sent = await world.submit(place("user"))
    assert await world.fates(sent) == {place("user"): EventType.DELIVERED}
    assert behaviour.contents == 2, "one retry"
    assert world.ledger.copies(sent.ledger_id, place("user")) == copies, "at most one duplicate"
    world.allowed_repeats += copies - 1
    events = await world.events(sent.message_id)
    (ambiguous,) = [event for event in events if event.type is EventType.AMBIGUOUS]
    (delivered,) = [event for event in events if event.type is EventType.DELIVERED]
    assert ambiguous.detail == "may be delivered more than once"
    assert delivered.attempt == 2
    assert delivered.at - ambiguous.at >= 0.4, "the retry came at back-off"
    assert world.log_has(sent.message_id, "may be delivered more than once")


class Closing:
    """A plain server that answers one stage of its first session with 421, stays, and listens to what is still said."""

    def __init__(self, world: FaultWorld, place: Place, stage: str) -> None:
        self.stage = stage
        self.sessions = 0
        self.said_after: list[str] = []
        self._world = world
        self._place = place
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.sessions += 1
        refuses = self.sessions == 1
        replies = {"data": "354 go", "quit": "221 bye"}
        content: list[str] = []
        stage = "banner"
        with contextlib.suppress(ConnectionError):
            while True:
                if refuses and stage == self.stage:
                    writer.write(b"421 4.3.2 shutting down\r\n")
                    self.said_after += (await reader.read(-1)).decode().splitlines()
                    break
                writer.write(f"{'220 x' if stage == 'banner' else replies.get(stage, '250 2.0.0 ok')}\r\n".encode())
                if stage == "data":
                    content = []
                    while (line := (await reader.readline()).decode()) not in {".\r\n", ""}:
                        content.append(line.removeprefix("."))
                    stage = "dot"
                    if not (refuses and stage == self.stage):
                        self._take("".join(content).encode())
                    continue
                line = (await reader.readline()).decode()
                stage = line[:4].strip().lower()
                if not line or stage == "quit":
                    break
        writer.close()
        self._tasks.discard(task)

    def _take(self, content: bytes) -> None:
        self._world.record(Received("", "", "", False, SENDER, (self._place("user"),), (), content))

    async def done(self) -> None:
        await self._world.until(lambda: not self._tasks)


@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data", "dot"])
async def test_421_requeues_and_the_connection_is_not_used_again(world: FaultWorld, stage: str) -> None:
    place = await world.place(listens=False)
    server = Closing(world, place, stage)
    async with await asyncio.start_server(server.serve, place.address, world.system.mx_port):
        sent = await world.submit(place("user"))
        assert await world.fates(sent) == {place("user"): EventType.DELIVERED}
        assert server.said_after in ([], ["QUIT"])
        assert server.sessions == 2
        await server.done()
    assert world.ledger.copies(sent.ledger_id, place("user")) == 1
    events = await world.events(sent.message_id)
    (deferred,) = [event for event in events if event.type is EventType.DEFERRED]
    assert deferred.reply is not None
    assert deferred.reply.code == 421
    assert not [event for event in events if event.type is EventType.AMBIGUOUS]


class ByName(Behaviour):
    """Answers RCPT by local part: each has a list of replies, used up call by call; the last one stays."""

    def __init__(self, **replies: list[str | None]) -> None:
        self.replies = replies
        self.asked: Counter[str] = Counter()

    def rcpt(self, session: Session, address: str) -> str | None:
        name = address.partition("@")[0]
        self.asked[name] += 1
        replies = self.replies.get(name, [None])
        return replies.pop(0) if len(replies) > 1 else replies[0]


async def test_a_greylisted_recipient_gets_exactly_one_copy_on_attempt_two(world: FaultWorld) -> None:
    behaviour = ByName(user=["450 4.7.1 Greylisted, try again later", None])
    place = await world.place(behaviour)
    sent = await world.submit(place("user"))
    assert await world.fates(sent) == {place("user"): EventType.DELIVERED}
    (delivered,) = [e for e in await world.events(sent.message_id) if e.type is EventType.DELIVERED]
    assert delivered.attempt == 2
    assert behaviour.asked == {"user": 2}
    assert world.ledger.copies(sent.ledger_id, place("user")) == 1
    assert not world.reports_about(sent)


async def test_recipients_of_one_message_have_each_their_own_fate(world: FaultWorld) -> None:
    behaviour = ByName(later=["450 4.2.1 Not now", "450 4.2.1 Not now", None], nobody=["550 5.1.1 No such user"])
    place = await world.place(behaviour)
    good, later, nobody = place("good"), place("later"), place("nobody")
    sent = await world.submit(good, later, nobody)
    assert await world.fates(sent, 3) == {
        good: EventType.DELIVERED,
        later: EventType.DELIVERED,
        nobody: EventType.FAILED,
    }
    assert behaviour.asked == {"good": 1, "later": 3, "nobody": 1}, "who is done is never tried again"
    assert [world.ledger.copies(sent.ledger_id, address) for address in (good, later, nobody)] == [1, 1, 0]
    report = read_report((await world.report(sent)).content)
    (about,) = report.recipients
    assert (about["Final-Recipient"], about["Action"], about["Status"]) == (f"rfc822;{nobody}", "failed", "5.1.1")
    assert "No such user" in about["Diagnostic-Code"]


async def test_replies_in_clear_that_follow_starttls_are_discarded(world: FaultWorld) -> None:
    # In one packet: the go-ahead, and a forged EHLO reply with a limit that would make the mail bounce.
    place = await world.place(listens=False)
    script = {"starttls": ["220 go\r\n250-forged\r\n250 SIZE 1"], "ehlo": ["250-x\r\n250 STARTTLS", "250 x"]}
    async with scripted(script, address=place.address, port=world.system.mx_port, tls=world.server_tls()) as server:
        sent = await world.submit(place("user"))
        assert await world.fates(sent) == {place("user"): EventType.DELIVERED}
        (taken,) = server.taken
        assert taken.secured
        assert server.sessions[0].lines[:3] == [server.sessions[0].lines[0], "STARTTLS", server.sessions[0].lines[0]]
    world.record(Received("", "", "", taken.secured, SENDER, (place("user"),), (), taken.content))
    assert world.ledger.copies(sent.ledger_id, place("user")) == 1
