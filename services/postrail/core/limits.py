"""What one source IP may do to one site, and when the next thing is allowed.

Owns the merge of limits (default → provider → site → domain, each first for all source IPs and then for one), the starting
profiles of known providers, and the rate arithmetic. Time is an argument. `postrail.sender.site_queue` asks; how limits are
shared with other processes of the machine is there and in `postrail.sender.slots`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from postrail.core.delivery_config import DeliveryConfig, LimitsConfig, SourceLimits

_MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """For one source IP and one site, on the whole machine."""

    connections: int = 10
    messages_per_connection: int = 100
    messages_per_second: float = 100.0
    new_connections_per_minute: float = 100.0
    tls_required: bool = False
    suspend: bool = False


DEFAULT_LIMITS = Limits()

PROFILES: dict[str, LimitsConfig] = {
    "gmail": LimitsConfig(connections=5, messages_per_connection=50, tls_required=True),
    "yahoo": LimitsConfig(messages_per_connection=20),
    "microsoft": LimitsConfig(connections=5, messages_per_connection=50),
    "apple": LimitsConfig(connections=10, messages_per_connection=5),
    "comcast": LimitsConfig(connections=25, messages_per_connection=1000),
    "orange": LimitsConfig(connections=2),
}
"""Where to start with providers (by the name of their site), from their public guidance; the configuration wins."""


def limits_for(config: DeliveryConfig, source_address: str, site: str, domain: str) -> Limits:
    """Merge what is said about this source, site and recipient domain; what is said last wins.

    Args:
        source_address: in its canonical form; "" where there is none.
        site: the site's name; for a provider's site that is the provider's name.
        domain: the recipients' domain, lower case.
    """
    limits = DEFAULT_LIMITS
    for rules in (
        config.default_limits,
        PROFILES.get(site),
        config.provider_limits.get(site),
        config.site_limits.get(site),
        config.domain_limits.get(domain),
    ):
        if rules is not None:
            limits = _merge(limits, rules)
            of_source = rules.sources.get(source_address)
            limits = _merge(limits, of_source) if of_source is not None else limits
    return limits


def _merge(limits: Limits, rules: SourceLimits) -> Limits:
    said = {name: value for name in Limits.__slots__ if (value := getattr(rules, name)) is not None}
    return replace(limits, **said) if said else limits


class Pace:
    """At most `events` in any window of `window_seconds`, exactly, with a short burst after a pause.

    The generic cell rate algorithm: a tenth of the events may come at once, the rest evenly. The interval is such that burst
    and even part together never exceed the limit in any window, so a long run reaches 9/10 of it or more.
    """

    __slots__ = ("_interval_seconds", "_next_at", "_tolerance_seconds")

    def __init__(self, events: float, window_seconds: float) -> None:
        burst = max(1, int(events / 10))
        self._interval_seconds = window_seconds / max(events - burst + 1, events / 2)
        self._tolerance_seconds = (burst - 1) * self._interval_seconds
        self._next_at = float("-inf")

    def start_empty(self, since: float) -> None:
        """Nothing was saved up at `since`: the first event comes one interval later. For whoever takes over from another, who
        may have used up all that was allowed."""
        self._next_at = max(self._next_at, since + self._interval_seconds + self._tolerance_seconds)

    @property
    def interval_seconds(self) -> float:
        """What lies between two events of a long run."""
        return self._interval_seconds

    def wait_seconds(self, now: float) -> float:
        """How long until the next event is allowed; 0 when it is now."""
        return max(0.0, self._next_at - self._tolerance_seconds - now)

    def take(self, now: float) -> None:
        """Count an event that happens now."""
        self._next_at = max(self._next_at, now) + self._interval_seconds


def message_pace(limits: Limits, shares: int) -> Pace:
    """Messages of one of `shares` equal processes."""
    return Pace(limits.messages_per_second / shares, 1.0)


def connection_pace(limits: Limits, shares: int) -> Pace:
    """New connections of one of `shares` equal processes."""
    return Pace(limits.new_connections_per_minute / shares, _MINUTE_SECONDS)
