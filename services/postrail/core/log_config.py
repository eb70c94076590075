"""The configuration of the log: `log` in the file. Which log, how long it keeps what, and how a Kafka cluster is reached.

Owns the shape, the defaults and the checks that need nothing but this section. The whole file is `config`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from postrail.core.section import Section
from postrail.core.units import Bytes, Seconds

DAY_SECONDS = 86400.0
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text.strip())
    if match is None or not 0 < int(match[1]) <= 65535:
        raise ValueError(f"{text!r} is not a broker's address; write HOST:PORT, such as kafka-0.kafka:9092")
    return text.strip()


Server = Annotated[str, BeforeValidator(_server)]


class KafkaTlsConfig(Section):
    """TLS to the brokers. Their certificates are always verified, for the host names in `bootstrap_servers` and those
    that the brokers advertise."""

    enabled: bool = False
    ca_file: str | None = None
    """PEM; None: the machine's authorities."""
    certificate_file: str | None = None
    """PEM, with `key_file`: this client's certificate, where the brokers ask for one."""
    key_file: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: set both or none")
        if not self.enabled and (self.ca_file or self.certificate_file):
            raise ValueError("files are given, but TLS is not enabled: set enabled: true, or remove them")
        return self


class KafkaSaslConfig(Section):
    """How this client signs in."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: Annotated[str, Field(min_length=1)]
    password: SecretStr | None = None
    password_file: str | None = None
    """Read at the start; a line break at its end does not count."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give the password in one place: password, or password_file")
        return self


class KafkaConfig(Section):
    """The Kafka cluster, and how it is used."""

    bootstrap_servers: Annotated[tuple[Server, ...], Field(min_length=1)]
    """Some of the brokers, HOST:PORT each; they name the others."""
    tls: KafkaTlsConfig = KafkaTlsConfig()
    sasl: KafkaSaslConfig | None = None
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    """Stands before the names of all topics and consumer groups."""
    instance: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None
    """This process's name among the members of its consumer group; a process that comes back under the same name within
    the session timeout gets its partitions back at once. Two processes of one service must never have the same. None: the
    host's name, which is the pod's."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    """How many a mail topic gets: the most processes of one service that can share its work."""
    topic_partitions: dict[str, Annotated[int, Field(ge=1, le=1000)]] = {}
    """The same for single topics, by name without prefix and lane: `accepted`, `outbound.default.gmail`."""
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 3
    min_insync_replicas: Annotated[int, Field(ge=1, le=10)] = 2
    """How many brokers must have a record before it counts as stored."""
    create_topics: bool = False
    """Create topics that are missing when they are first used: for tests and development. Otherwise `postrail topics apply`
    creates them."""
    session_timeout_seconds: Annotated[Seconds, Field(ge=6, le=1800)] = 45.0
    """A process that is not heard of for so long loses its partitions. The brokers' own bounds apply
    (group.min.session.timeout.ms, group.max.session.timeout.ms)."""
    rebalance_timeout_seconds: Annotated[Seconds, Field(ge=1, le=3600)] = 90.0
    """How long the members of a group have to finish what they have begun when partitions change hands."""
    delivery_timeout_seconds: Annotated[Seconds, Field(ge=1, le=600)] = 20.0
    """An append that is not acknowledged after this fails: submission answers 451."""
    stuck_seconds: Annotated[Seconds, Field(ge=5, le=3600)] = 120.0
    """The process ends when the client makes no progress for so long although the brokers can be reached."""
    linger_seconds: Annotated[Seconds, Field(ge=0, le=1)] = 0.003
    """How long a record waits for others to be sent with it."""
    pace_seconds: Annotated[Seconds, Field(ge=0, le=1)] = 0.1
    """How long at most a service that has read all there is lets new records gather before it reads on, so that they are fetched,
    stored and committed together. The busier it is, the shorter; a record that comes alone does not wait, and a backlog is read
    without pauses."""
    commit_seconds: Annotated[Seconds, Field(ge=0, le=5)] = 0.5
    """How long what is finished may wait to be committed, so that one request tells of all of it. After a crash what was not
    committed is done again, and recognised before it would be sent again. Partitions are not given up before it."""
    compression: Literal["zstd", "lz4", "gzip", "none"] = "zstd"
    max_record_bytes: Annotated[Bytes, Field(ge=64 << 10, le=64 << 20)] = 2 << 20
    """The largest record, body included; the topics' max.message.bytes."""
    buffer_bytes: Annotated[Bytes, Field(ge=1 << 20)] = 64 << 20
    """Appends that wait for their acknowledgement; beyond it callers wait."""
    fetch_bytes: Annotated[Bytes, Field(ge=1 << 20)] = 16 << 20
    """Records fetched ahead by each consumer, about."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError(
                f"min_insync_replicas is {self.min_insync_replicas}, more than replication_factor "
                f"({self.replication_factor}): nothing could ever be stored"
            )
        if self.buffer_bytes < self.max_record_bytes:
            raise ValueError("buffer_bytes must be at least max_record_bytes")
        return self


class LogConfig(Section):
    """The log: where mail is while it is under way."""

    kind: Literal["embedded", "kafka"] = "embedded"
    """embedded: files of this machine, under data_directory. kafka: a Kafka cluster, described under `kafka`."""
    kafka: KafkaConfig | None = None
    retention_seconds: Seconds = 8 * DAY_SECONDS
    """How long mail topics are kept at most; must exceed the longest lifetime by 3 days."""
    keep_events_seconds: Seconds = 30 * DAY_SECONDS
    """How long events stay for `postrail trace`."""
    keep_consumed_seconds: Seconds = 60.0
    """Embedded: how long a record stays after every group has finished it."""
    min_free_bytes: Bytes = 1 << 30
    """Embedded: submission answers 452 when the disk has less room than this."""
    max_bytes: Bytes | None = None
    """Embedded: submission answers 452 when a worker's log file grows beyond this."""
    hot_bytes: Bytes = 32 << 20
    """Embedded: bodies and records kept in memory between stages, for each worker."""

    @model_validator(mode="after")
    def _kafka_is_described(self) -> Self:
        if self.kind == "kafka" and self.kafka is None:
            raise ValueError(
                "kind is kafka, so the section kafka must say where it is, such as "
                "kafka: {bootstrap_servers: [kafka-0.kafka:9092]}"
            )
        return self
