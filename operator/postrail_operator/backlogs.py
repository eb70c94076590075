"""Which SenderPools have no waiting mail, by what each of their senders tells: so that addresses are free without a Prometheus.

Owns how the metric is read and when it is believed: every sender of a pool has told, several times in a row, that nothing
waits. A sender that starts, ends or does not answer makes it unknown, as partitions may just change hands. `reports` asks the
senders; `prometheus` answers the same question where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

ELIGIBLE = "postrail_sender_eligible_deliveries"
IN_A_ROW = 3
"""So many times all senders must have told that nothing waits."""
FORGET_SECONDS = 60.0
"""After so long without an answer nothing is known any more."""


def read_eligible(text: str) -> dict[str, int]:
    """By pool, the deliveries that could be sent now, of a sender's metrics.

    Raises:
        ValueError: that is no text of metrics.
    """
    lines = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(ELIGIBLE))
    found: dict[str, int] = {}
    try:
        for sample in (sample for family in text_string_to_metric_families(lines) for sample in family.samples):
            pool = sample.labels.get("pool", "")
            found[pool] = found.get(pool, 0) + int(sample.value)
    except (IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"the metrics cannot be read: {error!r}") from error
    return found


@dataclass(slots=True)
class Backlogs:
    """What is known of the mail that waits.

    Args:
        clock: seconds of any steady clock.
    """

    clock: Callable[[], float]
    _rows: dict[str, int] = field(default_factory=dict)
    """By pool, how many times in a row nothing waited."""
    _told_at: float = 0.0

    def take(self, told: Iterable[tuple[str, int | None]]) -> None:
        """Remember what all senders told now.

        Args:
            told: of each sender its pool, and how much waits for it; None where it did not tell.
        """
        waiting: dict[str, bool] = {}
        for pool, eligible in told:
            waiting[pool] = waiting.get(pool, False) or eligible is None or eligible > 0
        before = self._rows if self.clock() - self._told_at < FORGET_SECONDS else {}
        self._rows = {pool: before.get(pool, 0) + 1 for pool, waits in waiting.items() if not waits}
        self._told_at = self.clock()

    def idle(self) -> frozenset[str]:
        """Pools for whose senders nothing waits."""
        if self.clock() - self._told_at >= FORGET_SECONDS:
            return frozenset()
        return frozenset(pool for pool, rows in self._rows.items() if rows >= IN_A_ROW)
