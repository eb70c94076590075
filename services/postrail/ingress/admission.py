"""Who may connect: the caps on connections, for the worker and for one client, and on new connections a minute.

Owns the counts. Memory is bounded by the connections that are open, and by the clients of the current minute.
"""

from __future__ import annotations

from math import ceil

from postrail.core.ingress_config import IngressLimits
from postrail.core.refusals import Reason, Refused, closing

_MAX_CLIENTS_A_MINUTE = 200_000


class Admission:
    """The caps of one of `shares` workers; `client` is `core.submission.client_key` of an address."""

    def __init__(self, limits: IngressLimits, shares: int) -> None:
        self._max_connections = ceil(limits.max_connections / shares)
        self._max_per_client = ceil(limits.max_connections_per_client / shares)
        self._max_new_per_minute = ceil(limits.new_connections_per_client_per_minute / shares)
        self._open: dict[str, int] = {}
        self._total = 0
        self._minute = 0
        self._new: dict[str, int] = {}

    def enter(self, client: str, now: float) -> Refused | None:
        """Count a connection; a refusal when it is one too many (then `leave` must not be called).

        Args:
            client: who connects.
            now: seconds of any steady clock.
        """
        minute = int(now // 60)
        if minute != self._minute or len(self._new) > _MAX_CLIENTS_A_MINUTE:
            self._minute = minute
            self._new = {}
        new = self._new[client] = self._new.get(client, 0) + 1
        if new > self._max_new_per_minute:
            return closing(Reason.CONNECTIONS, "4.7.0", "Too many new connections from your address; wait a minute")
        if self._total >= self._max_connections:
            return closing(Reason.CONNECTIONS, "4.7.0", "Too many connections; try again later")
        count = self._open.get(client, 0)
        if count >= self._max_per_client:
            return closing(Reason.CONNECTIONS, "4.7.0", "Too many connections from your address")
        self._open[client] = count + 1
        self._total += 1
        return None

    def leave(self, client: str) -> None:
        """A connection that entered has ended."""
        self._total -= 1
        left = self._open[client] - 1
        if left:
            self._open[client] = left
        else:
            del self._open[client]
