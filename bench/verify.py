"""Whether everything arrived, once, with a signature that an independent verifier accepts.

Owns: the comparison of what was sent with what the sink kept. The signatures are judged by Perl's Mail::DKIM
(``verify_dkim.pl``), which shares no code with Postrail.
"""

import logging
import re
import subprocess
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.dkim_key import SELECTOR, SENDER_DOMAIN
from bench.load import RECIPIENT_DOMAIN, BenchmarkError, send, tool
from bench.systems import System
from bench.workplace import prepared

_log = logging.getLogger("bench")

_VERIFIER = Path(__file__).with_name("verify_dkim.pl")
_STALL_SECONDS = 60.0
_EXTRA_SECONDS = 3.0
_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <(\d+)r@", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sink kept, judged. ``unsigned_or_bad`` counts messages whose signature does not verify."""

    sent: int
    missing: int
    duplicates: int
    verified: int
    unsigned_or_bad: int

    @property
    def good(self) -> bool:
        """Everything arrived, once, and verifies."""
        return not (self.missing or self.duplicates or self.unsigned_or_bad) and self.verified == self.sent


def verify(system: type[System], *, messages: int, sessions: int, size_bytes: int) -> Verdict:
    """Send the messages through the system into a sink that keeps them, and judge what it kept.

    Raises:
        BenchmarkError: the system did not start or refused a message, or the verifier could not run.
    """
    with prepared(system, keep=True) as (subject, sink):
        subject.start()
        send(subject.port, messages=messages, sessions=sessions, size_bytes=size_bytes)
        try:
            sink.wait_for(messages, _STALL_SECONDS)
        except BenchmarkError as error:
            _log.error("%s: %s", subject.label, error)
        with suppress(BenchmarkError):
            sink.wait_for(messages + 1, _EXTRA_SECONDS)  # a duplicate that comes late
        subject.stop()
        sink.stop()
        arrived = _arrivals(sink.directory)
        verified, bad = _signatures(sink.directory, subject.setup.key.public_record)
    expected = {number + 1 for number in range(messages)}
    verdict = Verdict(
        sent=messages,
        missing=len(expected - set(arrived)),
        duplicates=sum(arrived.values()) - len(arrived),
        verified=verified,
        unsigned_or_bad=bad,
    )
    _log.info("%s: %s", system.label, verdict)
    return verdict


def _arrivals(directory: Path) -> Counter[int]:
    """Count the kept messages by the number that smtp-source put before the recipient (``1r@...``)."""
    found: Counter[int] = Counter()
    for file in directory.iterdir():
        numbers = _RECIPIENT.findall(file.read_bytes()[:4096])
        if not numbers:
            raise BenchmarkError(f"{file.name} in the sink has no recipient of {RECIPIENT_DOMAIN}")
        found.update(int(number) for number in numbers)
    return found


def _signatures(directory: Path, public_record: str) -> tuple[int, int]:
    """Return how many kept messages verify, and how many do not."""
    command = [tool("perl"), str(_VERIFIER), str(directory), f"{SELECTOR}._domainkey.{SENDER_DOMAIN}", public_record]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"the verifier failed (Debian package libmail-dkim-perl):\n{done.stderr[-2000:]}")
    good, bad = done.stdout.split()
    if done.stderr:
        _log.error("%s", done.stderr[:2000].rstrip())
    return int(good), int(bad)
