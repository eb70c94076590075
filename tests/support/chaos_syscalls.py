"""Which system calls came before each 250: reads what strace wrote of a running system.

Owns the tracer's options, the reading of its files and the rule: before the 250 is written, the record and the body are in the
log's WAL and synced; a large body is in a file that is synced, renamed and its directory synced, before the record is written.
Starts nothing. Neighbours: `chaos_world` puts the tracer before the system, tests/chaos/test_system_calls.py asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

OPTIONS = (
    "--follow-forks",
    "--output-separately",
    "--absolute-timestamps=format:unix,precision:ns",
    "--syscall-times=ns",
    "--decode-fds=path",
    "--string-limit=400000",
    "--signal=none",
    "--trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2",
)
_CALL = re.compile(r"(\d+)\.(\d{9}) (\w+)\((.*)\) += (-?\d+).*<(\d+)\.(\d{9})>")
_PATH = re.compile(r"\d+<([^>]*)>")
_SYNCS = frozenset({"fsync", "fdatasync"})
_PART = ".part"


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded. `start` and `end` are nanoseconds; `path` is the file's, or `socket:[…]`."""

    start: int
    end: int
    name: str
    path: str
    arguments: str

    @property
    def is_sync(self) -> bool:
        return self.name in _SYNCS


def command(strace: str, folder: Path) -> tuple[str, ...]:
    """What stands before the command to be traced; a file for each thread is written to the folder."""
    return (strace, *OPTIONS, "--output", str(folder / "calls"))


def read(folder: Path) -> list[Call]:
    """All calls, in the order in which they ended."""
    calls = [call for path in folder.glob("calls.*") for call in _read(path)]
    return sorted(calls, key=lambda call: call.end)


def _read(path: Path) -> Iterator[Call]:
    for line in path.read_text(encoding="ascii").splitlines():
        match = _CALL.fullmatch(line)
        if match is None or match[5].startswith("-"):
            continue
        start = int(match[1] + match[2])
        where = _PATH.match(match[4])
        yield Call(start, start + int(match[6] + match[7]), match[3], where[1] if where else "", match[4])


def out_of_order(calls: Iterable[Call], reply: str, begin: str, end: str) -> list[str]:
    """What was missing when a 250 was written; [] when all was durable.

    Args:
        reply: the 250 as the client got it; its last word is the message's id.
        begin, end: text that stands at the begin and the end of the body only.
    """
    calls = list(calls)
    told = next((call for call in calls if call.path.startswith("socket:") and reply in call.arguments), None)
    if told is None:
        return [f"no call wrote {reply!r}"]
    before = [call for call in calls if call.end <= told.start]
    message_id = reply.rsplit(" ", 1)[-1]
    wal = [call for call in before if call.path.endswith(".sqlite-wal")]
    part = next((call.path for call in before if call.path.endswith(_PART) and end in call.arguments), None)
    wanted = [message_id] if part else [message_id, begin, end]
    synced = [call.start for call in wal if call.is_sync]
    missing = []
    for text in wanted:
        written = [call for call in wal if text in call.arguments and not call.is_sync]
        if not written:
            missing.append(f"{reply}: {text!r} was not written to the WAL")
        elif not any(start >= written[0].end for start in synced):
            missing.append(f"{reply}: the WAL was not synced after {text!r} was written")
    if part is not None:
        recorded = min((call.start for call in wal if message_id in call.arguments), default=told.start)
        missing += [f"{reply}: {what}" for what in _blob_problems(before, part, begin, end, recorded)]
    return missing


def _blob_problems(before: list[Call], part: str, begin: str, end: str, recorded: int) -> Iterator[str]:
    """The order of a large body's calls; each step must be over before the next one begins."""

    def is_write(call: Call, text: str) -> bool:
        return call.path == part and text in call.arguments

    def is_rename(call: Call) -> bool:
        return call.name.startswith("rename") and part in call.arguments

    def is_sync_of(call: Call, path: str) -> bool:
        return call.is_sync and call.path == path

    steps: tuple[tuple[str, Callable[[Call], bool]], ...] = (
        ("its end was not written", lambda call: is_write(call, end)),
        ("its file was not synced", lambda call: is_sync_of(call, part)),
        ("its file was not renamed", is_rename),
        ("its directory was not synced", lambda call: is_sync_of(call, str(Path(part).parent))),
    )
    begun = next((call for call in before if is_write(call, begin)), None)
    if begun is None:
        yield "its begin was not written before its record"
        return
    after = begun.start
    for problem, matches in steps:
        found = next((call for call in before if matches(call) and call.start >= after and call.end <= recorded), None)
        if found is None:
            yield f"{problem} before its record"
            return
        after = found.end
