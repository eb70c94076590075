"""Sections `ingress` and `submitters` of the configuration: who may submit mail, where, and how much.

Checks across sections are in `config`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from postrail.core.config_values import Count, Domain, IPAddress, IPNetwork, Name, Port
from postrail.core.section import Section
from postrail.core.units import Bytes, Seconds


class ListenerKind(StrEnum):
    SUBMISSION = "submission"
    """STARTTLS, then AUTH (port 587)."""
    SUBMISSIONS = "submissions"
    """TLS from the first byte, then AUTH (port 465)."""
    TRUSTED = "trusted"
    """No AUTH: the client's address decides (port 25)."""


class ListenerConfig(Section):
    kind: ListenerKind
    address: IPAddress = "0.0.0.0"  # noqa: S104  # a mail server's listener faces the network
    port: Port
    networks: tuple[IPNetwork, ...] = ()
    """TRUSTED: who may submit here."""
    submitter: str = ""
    """TRUSTED: whose sender domains, stream and quotas apply."""
    proxy_protocol_from: tuple[IPNetwork, ...] = ()
    """Balancers whose PROXY protocol header is believed (a later release); must be empty."""

    @model_validator(mode="after")
    def _trusted_is_complete(self) -> Self:
        if self.kind is ListenerKind.TRUSTED and not (self.networks and self.submitter):
            raise ValueError("a trusted listener needs networks (who may submit) and submitter (as whom)")
        if self.kind is not ListenerKind.TRUSTED and (self.networks or self.submitter):
            raise ValueError("networks and submitter are for trusted listeners only")
        if self.proxy_protocol_from:
            raise ValueError("the PROXY protocol is not supported yet; remove proxy_protocol_from")
        return self


class TLSConfig(Section):
    """The certificate that the listeners show; read again when the files change."""

    certificate_file: str
    key_file: str
    reload_seconds: Seconds = 60.0


class IngressLimits(Section):
    max_message_bytes: Bytes = 25 << 20
    max_header_bytes: Bytes = 256 << 10
    max_line_bytes: Bytes = 512 << 10
    """A longer line of content is refused with 500 5.6.0 (RFC 5321 allows refusing above 1,000)."""
    max_recipients: Count = 1000
    max_connections: Count = 5000
    max_connections_per_client: Count = 200
    max_messages_per_connection: Count = 100_000
    max_errors_per_connection: Count = 10
    """Then 421 4.7.0. Protocol errors and refused commands count."""
    new_connections_per_client_per_minute: Count = 6000
    command_timeout_seconds: Seconds = 300.0
    data_timeout_seconds: Seconds = 180.0
    """Longest silence within DATA or BDAT."""
    message_timeout_seconds: Seconds = 600.0
    """Longest time from DATA to the final dot."""
    spool_memory_bytes: Bytes = 64 << 20
    """Content of all sessions together that may be in memory; beyond that it goes to the blob store as it comes in."""
    auth_failures_before_421: Count = 3
    auth_failure_delay_seconds: Seconds = 1.0
    """Doubled with every failure of the same client address, up to 30 s."""


class IngressConfig(Section):
    listeners: tuple[ListenerConfig, ...] = ()
    tls: TLSConfig | None = None
    limits: IngressLimits = IngressLimits()
    max_queue_records: Count = 2_000_000
    """Submission answers 452 4.3.1 when this many records wait for signing on a worker."""

    @model_validator(mode="after")
    def _tls_where_needed(self) -> Self:
        if self.tls is None:
            for index, listener in enumerate(self.listeners):
                if listener.kind is not ListenerKind.TRUSTED:
                    raise ValueError(
                        f"listeners[{index}] ({listener.kind}) needs a certificate: set ingress.tls.certificate_file and key_file"
                    )
        return self


class SubmitterRules(Section):
    """What a submitter may do."""

    domains: tuple[Domain, ...]
    """Sender domains of this submitter; `*` allows all (for trusted relays), `.example.com` all names below."""
    stream: Name = "transactional"
    """The stream of its messages where no control header chooses another."""
    streams: tuple[Name, ...] = ()
    """Streams that its control header may choose; its own is always allowed."""
    messages_per_minute: Count | None = None
    """More are refused for the moment (450); absent: no bound."""
    null_sender: bool = False
    """Whether it may send from the null reverse path."""


class SubmitterConfig(SubmitterRules):
    """Who may submit, and as whom."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    password_hash: SecretStr | None = None
    """argon2id, as `postrail password-hash` prints it; None: no AUTH as this submitter (trusted listeners only)."""
    password_hash_file: str | None = None
    """Where `password_hash` stands instead; read at the start, a line break at its end does not count."""

    @model_validator(mode="after")
    def _one_hash(self) -> Self:
        if self.password_hash is not None and self.password_hash_file is not None:
            raise ValueError("give the hash in one place: password_hash, or password_hash_file")
        return self
