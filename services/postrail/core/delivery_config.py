"""Section `delivery` of the configuration: limits, timeouts, retries and TLS of what is sent.

Which of the limits count for one source IP and site decides `limits`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from postrail.core.config_values import Count, Domain, IPAddress, Name
from postrail.core.section import Section
from postrail.core.units import Seconds


class SourceLimits(Section):
    """What one source IP may do to one site. None: not said here, a wider rule decides."""

    connections: Count | None = None
    """At the same time, over all processes."""
    messages_per_connection: Count | None = None
    """After so many the connection is closed."""
    messages_per_second: Annotated[float, Field(gt=0)] | None = None
    """In the long run; a tenth of them may come at once."""
    new_connections_per_minute: Annotated[float, Field(gt=0)] | None = None
    """In the long run; a tenth of them may come at once."""
    tls_required: bool | None = None
    """True lets mail wait rather than send it in clear."""
    suspend: bool | None = None
    """True sends nothing there: mail is parked, and goes from minutes after the end of it on, as the other limits and
    retry.returns_per_second allow."""


class LimitsConfig(SourceLimits):
    """The same for every source IP, and for single ones."""

    sources: dict[IPAddress, SourceLimits] = {}
    """The same for single source IPs; these win over the fields beside them."""


class TimeoutsConfig(Section):
    """RFC 5321 §4.5.3.2."""

    connect_seconds: Seconds = 30.0
    greeting_seconds: Seconds = 300.0
    ehlo_seconds: Seconds = 300.0
    starttls_seconds: Seconds = 120.0
    mail_seconds: Seconds = 300.0
    rcpt_seconds: Seconds = 300.0
    data_seconds: Seconds = 120.0
    block_seconds: Seconds = 180.0
    final_dot_seconds: Seconds = 600.0
    rset_seconds: Seconds = 20.0
    quit_seconds: Seconds = 5.0
    idle_seconds: Seconds = 60.0


class RetryConfig(Section):
    delays_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (300.0, 900.0, 3600.0, 14400.0)
    """After the first, second, … attempt; the last one repeats."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Each delay is shortened by up to this fraction."""
    tiers_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (60.0, 300.0, 900.0, 3600.0, 14400.0)
    """The deferral topics; a delay takes the smallest tier that is not shorter."""
    delay_warning_seconds: Seconds = 4 * 3600.0
    """When a warning DSN is sent to those who asked for it."""
    site_backoff_seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (60.0, 300.0, 900.0, 3600.0)
    """How long a site is left alone for one source IP after it could not be reached, doubling as listed."""
    returns_per_second: Annotated[float, Field(gt=0)] = 25.0
    """What comes back at most to a site that was left alone, for one source IP: it may be down still, and each costs then."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.tiers_seconds) != sorted(set(self.tiers_seconds)):
            raise ValueError("tiers_seconds must ascend")
        if max(self.delays_seconds) > self.tiers_seconds[-1]:
            raise ValueError("the longest of delays_seconds must not exceed the last tier")
        return self


class OutboundTls(StrEnum):
    OPPORTUNISTIC = "opportunistic"
    NONE = "none"


class DeliveryConfig(Section):
    tls: OutboundTls = OutboundTls.OPPORTUNISTIC
    default_limits: LimitsConfig = LimitsConfig()
    provider_limits: dict[Name, LimitsConfig] = {}
    site_limits: dict[str, LimitsConfig] = {}
    domain_limits: dict[Domain, LimitsConfig] = {}
    timeouts: TimeoutsConfig = TimeoutsConfig()
    retry: RetryConfig = RetryConfig()
    max_in_memory: Count = 10_000
    """Deliveries that one sender holds at a time."""
    max_site_queue: Count = 5000
    """Deliveries in memory for one source IP and site; the rest is parked if it would wait longer than the first tier."""
    drain_seconds: Seconds = 30.0
    """How long a stopping sender waits for transactions past the final dot."""
