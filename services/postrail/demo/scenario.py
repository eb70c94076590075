"""The run itself: world up, system up, mailing in, wait until the books are even, system down.

Owns the order of these and the end: the run ends by itself when nothing is open, or at the deadline. What it found is an
Outcome; `summary` shows it. Neighbours: `world`, `system`, `submitter`, `ledger`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import dkim

from postrail.demo.credentials import server_context, write_certificate
from postrail.demo.ledger import Balance, Bounce, Entry, Ledger, body_digest, bounces_in, ledger_id_of
from postrail.demo.mailing import letters
from postrail.demo.receivers import Received
from postrail.demo.submitter import Submitter
from postrail.demo.system import PASSWORD, SUBMITTER, System, SystemFailed
from postrail.demo.world import Place, World

SESSIONS = 12
SETTLE_SECONDS = 1.0
POLL_SECONDS = 0.2
SAMPLES_OF_A_PLACE = 2


@dataclass(slots=True)
class PlaceCount:
    """What one place recorded."""

    received: int = 0
    encrypted: int = 0
    signed: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    samples: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the run found. `seconds` from the first submission to the last arrival, `submission_seconds` to the last 250."""

    balance: Balance
    seconds: float
    submission_seconds: float
    counts: dict[str, PlaceCount]
    refusals: dict[str, Counter[str]]
    bounces: tuple[Bounce, ...]
    notifications: int
    signatures_checked: int
    signatures_valid: int
    refused: tuple[str, ...]
    unanswered: int
    message_ids: dict[str, Entry]
    traced: str
    exit_status: int

    @property
    def is_good(self) -> bool:
        """Whether the books are even, nothing waits, and the system stopped cleanly."""
        return self.balance.is_even and not self.balance.queued and not self.refused and self.exit_status == 0

    def as_json(self) -> dict[str, object]:
        """One object for programs."""
        balance = self.balance
        return {
            "accepted": balance.accepted,
            "delivered": balance.delivered,
            "bounced": balance.bounced,
            "deferred": balance.queued,
            "lost": len(balance.lost),
            "duplicates": balance.duplicates,
            "seconds": round(self.seconds, 3),
            "altered": balance.altered,
            "refused": len(self.refused),
            "messages_per_second": round(balance.accepted / self.seconds, 1) if self.seconds else 0.0,
            "submission_seconds": round(self.submission_seconds, 3),
            "temporary_refusals": sum(
                count for codes in self.refusals.values() for code, count in codes.items() if code.startswith("4")
            ),
            "signatures_checked": self.signatures_checked,
            "signatures_valid": self.signatures_valid,
            "exit_status": self.exit_status,
        }


@dataclass(slots=True)
class Scenario:
    """One run.

    Attributes:
        deadline_seconds: from the first submission; what is still open then counts as queued or lost.
        on_progress: called several times a second.
    """

    folder: Path
    messages: int
    workers: int
    seed: int
    deadline_seconds: float
    on_progress: Callable[[Scenario], None]
    ledger: Ledger = field(default_factory=Ledger)
    counts: dict[str, PlaceCount] = field(default_factory=dict)
    phase: str = "starting"
    notifications: int = 0
    world: World | None = None
    _last_arrival: float = 0.0
    _submission_seconds: float = 0.0

    async def run(self) -> Outcome:
        """Run to the end.

        Raises:
            SystemFailed: the system did not start, or ended.
        """
        self.world = World(
            self._received, self._notified, server_context(*write_certificate(self.folder, "mx.example"))
        )
        self.counts = {place.domain: PlaceCount() for place in self.world.places}
        await self.world.start()
        system = System(self.folder, self.world.dns, self.world.port, self.workers)
        try:
            system.write()
            await system.start()
            return await self._mail(self.world, system)
        finally:
            self.phase = "stopping"
            self.on_progress(self)
            try:
                await system.stop()
            finally:
                system.kill()
                await self.world.stop()

    async def _mail(self, world: World, system: System) -> Outcome:
        submitter = Submitter("127.0.0.1", system.submission_port, SUBMITTER, PASSWORD, self.ledger)
        mailing = letters(self.messages, world.places, self.seed)
        world.begin()
        started = self._last_arrival = time.monotonic()
        self.phase = "submitting"
        submission = asyncio.create_task(submitter.run(mailing, SESSIONS))
        await self._watch(system, submission, started + self.deadline_seconds)
        self.phase = "stopping"
        traced = await self._traced(system, submitter)
        status = await system.stop()
        queued = await self._queued(system, submitter) if self.ledger.open_count else frozenset()
        checked, valid = self._signatures(world)
        return Outcome(
            self.ledger.balance(queued),
            self._last_arrival - started,
            self._submission_seconds,
            self.counts,
            {domain: world.refusals(domain) for domain in self.counts},
            tuple(self.ledger.bounces),
            self.notifications,
            checked,
            valid,
            tuple(reply for _, reply in submitter.refused),
            len(submitter.unanswered),
            submitter.message_ids,
            traced,
            status,
        )

    async def _watch(self, system: System, submission: asyncio.Task[None], deadline: float) -> None:
        """Until everything has arrived and nothing more comes."""
        started = time.monotonic()
        while time.monotonic() < deadline:
            self.on_progress(self)
            if system.process is not None and system.process.returncode is not None:
                submission.cancel()
                raise SystemFailed(f"`postrail up` ended with status {system.process.returncode}:\n{system.said()}")
            if submission.done() and self.phase == "submitting":
                await submission
                self._submission_seconds = time.monotonic() - started
                self.phase = "delivering"
            if submission.done() and not self.ledger.open_count:
                await asyncio.sleep(SETTLE_SECONDS)
                return
            await asyncio.sleep(POLL_SECONDS)
        submission.cancel()
        await asyncio.gather(submission, return_exceptions=True)

    def _received(self, place: Place, received: Received) -> None:
        self._last_arrival = time.monotonic()
        ledger_id = ledger_id_of(received.content)
        count = self.counts[place.domain]
        count.received += 1
        count.encrypted += received.tls
        count.sources[received.client_address] += 1
        header_block = received.content.partition(b"\r\n\r\n")[0]
        count.signed += b"DKIM-Signature:" in header_block
        if len(count.samples) < SAMPLES_OF_A_PLACE:
            count.samples.append(received.content)
        if ledger_id is not None:
            digest = body_digest(received.content)
            for recipient in received.recipients:
                self.ledger.received(ledger_id, recipient, digest)

    def _notified(self, received: Received) -> None:
        self._last_arrival = time.monotonic()
        self.notifications += 1
        for bounce in bounces_in(received.content):
            self.ledger.bounced(bounce)

    def _signatures(self, world: World) -> tuple[int, int]:
        """Check every signature of the samples with an independent verifier."""
        checked = valid = 0
        for count in self.counts.values():
            for sample in count.samples:
                checked += 1
                valid += bool(dkim.verify(sample, dnsfunc=lambda name, timeout=5: world.dns.txt(name)))
        return checked, valid

    async def _traced(self, system: System, submitter: Submitter) -> str:
        """The story of one message that was greylisted, as `postrail trace` tells it."""
        for message_id, entry in submitter.message_ids.items():
            if entry.recipient.endswith("@library.example"):
                return await system.command("trace", message_id)
        return ""

    async def _queued(self, system: System, submitter: Submitter) -> frozenset[Entry]:
        """What `postrail queue` still shows of the mailing."""
        found: set[Entry] = set()
        ids = set()
        for line in (await system.command("queue", "--messages", "--json")).splitlines():
            item = json.loads(line)
            ids.add(item["message_id"])
            entry = submitter.message_ids.get(item["message_id"])
            if entry is not None:
                found.update(Entry(entry.ledger_id, recipient) for recipient in item["recipients"] or [entry.recipient])
        for message_id, entry in submitter.message_ids.items():
            if ids and entry in self.ledger.open_entries - found:
                story = await system.command("trace", message_id, "--json")
                if any(notice in story for notice in ids):
                    found.add(entry)  # its notification waits
        return frozenset(found)
