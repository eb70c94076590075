"""Which of several operators acts: the one with the highest priority in the KopfPeering that all share. Pure.

kopf decides by the same rule whose handlers run; this is for the operator's own loop. Each takes a priority by lot when it
starts, since of two with the same one none would act.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

HIGHEST_PRIORITY = 2**31 - 1


def acts(peering: Mapping[str, Any] | None, identity: str, priority: int, now: datetime) -> bool:
    """Whether this operator acts.

    Args:
        peering: the KopfPeering; None where there is none, and so nobody else.
        identity: this operator's name in it.
        now: aware, UTC.
    """
    peers = (peering or {}).get("status") or {}
    if not isinstance(peers, Mapping):
        return True
    others = [(name, peer) for name, peer in peers.items() if name != identity and isinstance(peer, Mapping)]
    return not any(
        _lives(peer, now) and (peer.get("priority", 0), name) > (priority, identity) for name, peer in others
    )


def _lives(peer: Mapping[str, Any], now: datetime) -> bool:
    try:
        seen = datetime.fromisoformat(str(peer.get("lastseen", "")))
    except ValueError:
        return False
    seen = seen if seen.tzinfo is not None else seen.replace(tzinfo=UTC)
    return seen + timedelta(seconds=float(peer.get("lifetime", 60))) > now
