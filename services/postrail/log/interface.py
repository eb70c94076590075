"""What the rest of Postrail knows of the log. Nothing outside `postrail.log` knows which implementation is in use.

A log holds topics; a topic has partitions; a record has an offset in its partition. Readers belong to a group and commit
which offsets they have finished. Neighbours: `progress` (which offsets of a partition are finished), `sqlite` (the
embedded implementation) and `kafka` (a cluster's). `tests/contract/log_contract.py` is what any implementation must pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from postrail.log.progress import Progress


class LogError(Exception):
    """The log could not do what was asked."""


class LogFull(LogError):
    """No room to store (disk full, or the configured bound is reached). Clears by itself when there is room again."""


class LogUnavailable(LogError):
    """The log cannot be reached, or is closing."""


TOO_LARGE_RETRY_SECONDS = 30.0
"""How long whoever appends waits with a record that is too large: somebody must change a limit first."""


class RecordTooLarge(LogError):
    """Some of the appends are more than the log takes. It has stored all the others.

    Attributes:
        places: which, counted from 0.
    """

    def __init__(self, text: str, places: Collection[int]) -> None:
        super().__init__(text)
        self.places = places

    def left_of(self, groups: Iterable[Sequence[Append]]) -> list[list[Append]]:
        """Of each group, what was not stored. The groups are the appends, in their order."""
        place, left = 0, []
        for group in groups:
            left.append([append for number, append in enumerate(group, place) if number in self.places])
            place += len(group)
        return left


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Position(NamedTuple):
    """Where a record durably lies."""

    topic: str
    partition: int
    offset: int


class Body(Protocol):
    """The content of a message, without its header block, that travels beside a record.

    Where `Log.shares_bodies` holds, the bytes are stored once per log: appending a record with a `Body` that came from this
    log stores a reference. Otherwise every record has its own copy.
    """

    @property
    def size_bytes(self) -> int: ...

    @property
    def in_memory(self) -> bytes | None:
        """The bytes where they are at hand without reading anything, otherwise None: then `load` them."""
        ...

    async def load(self) -> bytes:
        """The bytes; from memory where they still are, otherwise read from the log.

        Raises:
            LogError: the bytes cannot be read.
        """
        ...


class Append(NamedTuple):
    """A record to be appended. `key` picks the partition; `body` is raw bytes when new, or a record's `Body`.

    `decoded` is the immutable object that `value` encodes, for readers that come soon (`Record.decoded`); never stored.
    """

    topic: str
    key: bytes
    value: bytes
    body: bytes | Body | None = None
    decoded: object | None = None


@dataclass(slots=True)
class Record:
    """A record as read. `appended_at` is Unix time in seconds.

    `decoded` is the object that came with the append where the log still has it in memory, otherwise None: then decode
    `value`. A log that keeps nothing in memory never has it.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    body: Body | None
    appended_at: float
    decoded: object | None = None


class Commit(NamedTuple):
    """What a group has finished of one partition."""

    group: str
    partition: TopicPartition
    progress: Progress


Rebalance = Callable[[Sequence[TopicPartition]], Awaitable[None]]


class Consumer(Protocol):
    """One member of a group. Not for concurrent use: one task polls."""

    async def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """The next records of the assigned, not paused partitions; [] after `timeout_seconds` without any.

        Records of one partition come in offset order, and together. Topics are given to `Log.consumer` in order of
        preference: an earlier topic is read first, but while a later topic has records it gets at least a fifth of
        `max_records` (never starved). What the group has finished, per the last commit, is not read again; records
        polled but not committed are read again only by a new consumer. Polling never waits for processing.
        """
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Poll nothing from these until resumed."""
        ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    @property
    def assigned(self) -> Sequence[TopicPartition]: ...

    def lag(self) -> int:
        """Records of the assigned partitions that this consumer has not yet polled."""
        ...

    def lease_seconds(self) -> float:
        """How long this member may still act as the owner of what is assigned, should it hear nothing more from the log.

        0.8 x the session timeout, less the time since the group was last heard of; inf where partitions are not leased.
        0 or less: stale, another member may own them by now.
        """
        ...

    async def close(self) -> None:
        """Leave the group: `on_revoked` runs first for all that is assigned."""
        ...


class Log(Protocol):
    """A durable, ordered, partitioned log."""

    @property
    def is_atomic(self) -> bool:
        """Whether `transact` stores appends and commits at one moment. Otherwise a crash may leave appends without their
        commits: the records are read again, and what they lead to is appended again."""
        ...

    @property
    def shares_bodies(self) -> bool:
        """Whether a body is stored once however many records carry it."""
        ...

    def problem(self) -> str | None:
        """What is wrong with the log now, for health: None when it works."""
        ...

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        """Store all of them; returns, in order, once they are durable.

        When it raises, an atomic log has stored none of them; of another, some may be there, or come to be. Only one that is
        not atomic raises RecordTooLarge.

        Raises:
            LogFull: there is no room.
            LogUnavailable: the log cannot be reached.
            RecordTooLarge: some of them are; all others are stored.
        """
        ...

    async def transact(self, appends: Sequence[Append], commits: Sequence[Commit]) -> None:
        """Consume, produce, commit: the appends are durable before (or at the same moment as) the commits.

        An atomic log does both in one transaction. Of another the commits may be stored a little later, but before their
        partitions are given up, and before this process sees what is `committed`. Raises as `append`; then nothing was committed.
        """
        ...

    async def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        on_assigned: Rebalance | None = None,
        on_revoked: Rebalance | None = None,
    ) -> Consumer:
        """Join `group` on `topics`, which are created if they don't exist. Starts at what the group has committed, or at
        the earliest record that is kept. `on_assigned` has run for the first assignment before this returns, where the
        implementation assigns at once."""
        ...

    def topic_names(self) -> Collection[str]:
        """The names of all topics that were ever appended to or joined."""
        ...

    async def committed(self, group: str, topics: Sequence[str]) -> Mapping[TopicPartition, Progress]:
        """What a group has finished, for partitions on which it ever committed."""
        ...

    async def tail(self, topic: str, partition: int, *, newest: int, since: int | None = None) -> list[Record]:
        """The last records of a partition, in offset order: `newest` of them at most, or all from offset `since` on if
        that reaches further back. [] when there are none, or no such partition.

        Raises:
            LogUnavailable: the log cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Flush what waits, then release. Appends after this raise LogUnavailable."""
        ...
