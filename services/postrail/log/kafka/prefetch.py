"""What a member has fetched ahead: its partitions' buffers, their share of the memory, and in which order they are taken.

Owns which partitions are open (handed out) and which are held back (not fetched for now). It asks nobody anything. Neighbours:
`buffers` (one partition), `consumer` (which fills it), `shares` (topics in order of preference).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aiokafka.structs import TopicPartition as KafkaPartition

from postrail.log.interface import Record, TopicPartition
from postrail.log.kafka.buffers import Buffer
from postrail.log.kafka.records import FetchedRecord
from postrail.log.shares import Shares

MIN_SHARE_BYTES = 128 << 10


class Prefetch:
    """Args:
    topics: by name, in order of preference; `inner` gives the name for the brokers' one.
    hold, release: stop and resume the fetching of a partition.
    """

    def __init__(
        self,
        topics: Sequence[str],
        inner: Mapping[str, str],
        fetch_bytes: int,
        hold: Callable[[KafkaPartition], None],
        release: Callable[[KafkaPartition], None],
    ) -> None:
        self._inner, self._fetch_bytes = inner, fetch_bytes
        self._hold, self._release = hold, release
        self._shares = Shares(topics)
        self.buffers: dict[KafkaPartition, Buffer] = {}
        self._open: dict[str, list[Buffer]] = {topic: [] for topic in topics}
        self._paused: set[TopicPartition] = set()

    @property
    def open(self) -> list[TopicPartition]:
        """The partitions that are handed out."""
        return [buffer.where for buffers in self._open.values() for buffer in buffers]

    def buffer(self, where: KafkaPartition) -> Buffer:
        """A partition's buffer, made when there is none."""
        buffer = self.buffers.get(where)
        if buffer is None:
            inner = TopicPartition(self._inner[where.topic], where.partition)
            buffer = self.buffers[where] = Buffer(inner, where)
        return buffer

    def start(self, buffers: Iterable[Buffer]) -> None:
        """Hand these out from now on."""
        for buffer in buffers:
            self._open[buffer.where.topic].append(buffer)
        self._apply_paused()

    def drop(self) -> None:
        """Forget all partitions."""
        for buffers in self._open.values():
            buffers.clear()
        self.buffers.clear()
        self._paused.clear()

    def push(self, found: Mapping[KafkaPartition, Sequence[FetchedRecord]]) -> list[KafkaPartition]:
        """Take what was fetched; returns the partitions whose offsets went back, of which nothing was taken.

        Records of a partition may come before it is started.
        """
        share, went_back = self._share_bytes(), []
        for where, records in found.items():
            if not records:
                continue
            buffer = self.buffer(where)
            if not buffer.push(records):
                went_back.append(where)
            elif buffer.size_bytes >= share and not buffer.held:
                buffer.held = True
                self._hold(where)
        return went_back

    def is_behind(self, highwater: Callable[[KafkaPartition], int]) -> bool:
        """Whether a partition that is fetched has more, as far as the last fetches told."""
        return any(buffer.next < highwater(where) and not buffer.held for where, buffer in self.buffers.items())

    def take(self, max_records: int) -> list[Record]:
        """The next records of open, not paused partitions, `max_records` of them at most."""
        ready = [
            topic
            for topic, buffers in self._open.items()
            if any(buffer.records and not buffer.paused for buffer in buffers)
        ]
        return self._shares.take(ready, max_records, self._take_topic) if ready else []

    def _take_topic(self, topic: str, limit: int) -> list[Record]:
        taken: list[Record] = []
        buffers = self._open[topic]
        for buffer in list(buffers):
            if len(taken) >= limit:
                break
            if buffer.records and not buffer.paused:
                taken += buffer.take(limit - len(taken))
                buffers.remove(buffer)  # it comes last next time
                buffers.append(buffer)
                if buffer.held and buffer.size_bytes < self._share_bytes() // 2:
                    buffer.held = False
                    self._release(buffer.outer)
        return taken

    def _share_bytes(self) -> int:
        return max(MIN_SHARE_BYTES, self._fetch_bytes // max(1, len(self.buffers)))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Take nothing from these."""
        self._paused.update(partitions)
        self._apply_paused()

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Take from these again."""
        self._paused.difference_update(partitions)
        self._apply_paused()

    def _apply_paused(self) -> None:
        for buffer in self.buffers.values():
            buffer.paused = buffer.where in self._paused

    def lag(self, highwater: Callable[[KafkaPartition], int]) -> int:
        """Records of open partitions that were not taken."""
        return sum(buffer.lag(highwater(buffer.outer)) for buffers in self._open.values() for buffer in buffers)

    @property
    def held(self) -> list[KafkaPartition]:
        """The partitions that are not fetched for now."""
        return [where for where, buffer in self.buffers.items() if buffer.held]

    @property
    def size_bytes(self) -> int:
        """What waits to be taken."""
        return sum(buffer.size_bytes for buffer in self.buffers.values())
