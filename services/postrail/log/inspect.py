"""What the commands may ask of a log from outside: the records of a key, what was appended since, what nobody has finished.

Owns the protocol. Whoever looks takes no part: no group is joined, nothing is committed, no service notices. Works beside a
running system and without one. `sqlite.inspection` and `kafka.inspection` implement it; `postrail.cli.stores` picks one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from postrail.log.interface import Record

Wanted = Callable[[str], bool]
"""Whether a topic, by its name, is to be looked at."""


class Found(NamedTuple):
    """A record, and where it lies: the worker whose file it is in, or the topic's partition."""

    place: str
    record: Record


class Inspection(Protocol):
    """One look at a log.

    Attributes:
        place_name: what `Found.place` names: worker, partition.
        usual_limit: how many unfinished records are read where nobody says; None: all.
        search_seconds: how far back a search without a key goes where nobody says; None: as far as records are kept.
    """

    place_name: str
    usual_limit: int | None
    search_seconds: float | None

    async def keyed(self, topic: str, key: bytes, since: float) -> list[Record]:
        """The records of a topic with this key, oldest first.

        Args:
            since: Unix seconds; where the log cannot find a key at once, it looks only at what was appended later.
        Raises:
            LogError: the log cannot be read.
        """
        ...

    def since(self, topic: str, since: float) -> AsyncIterator[Record]:
        """All records of a topic that were appended since then and until now, partition by partition. Raises as `keyed`."""
        ...

    async def count_unfinished(self, wanted: Wanted) -> int:
        """How many records wait in the topics that are wanted. Raises as `keyed`."""
        ...

    def unfinished(self, wanted: Wanted, limit: int | None) -> AsyncIterator[Found]:
        """Records that at least one group of their topic has not finished; of a topic that nobody reads, all.

        Mail that moves meanwhile may be seen in two places, but never in none. Raises as `keyed`.

        Args:
            limit: about how many at most: the oldest of each partition, in proportion to what waits there.
        """
        ...
