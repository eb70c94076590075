"""How the brokers are reached: addresses, TLS, SASL, names of this client.

Owns the translation of the configuration into aiokafka's arguments, and where aiokafka's own log lines go: to ours, as debug
lines, because it writes one at each try while a broker is gone. It opens nothing; passwords go nowhere else.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

from postrail.core.log_config import KafkaConfig, KafkaSaslConfig, KafkaTlsConfig
from postrail.log.interface import LogUnavailable
from postrail.shell import logs

LOG = logs.logger("log")

RETRY_BACKOFF_MILLISECONDS = 100


class _ClientLines(logging.Handler):
    """What aiokafka logs. What matters of it is told by whoever meets it, as a problem or an error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one line on."""
        LOG.debug("kafka_client", module=record.name, problem=record.getMessage())


def _collect_client_lines() -> None:
    client = logging.getLogger("aiokafka")
    if not any(isinstance(handler, _ClientLines) for handler in client.handlers):
        client.addHandler(_ClientLines())
        client.setLevel(logging.WARNING)
        client.propagate = False


class Connection:
    """Makes the arguments of aiokafka's clients.

    Raises:
        LogUnavailable: a certificate, a key or the password's file cannot be used; the text says which.
    """

    def __init__(self, config: KafkaConfig, instance: str | None) -> None:
        _collect_client_lines()
        self.servers = ", ".join(config.bootstrap_servers)
        self._name = instance or "postrail"
        self._options: dict[str, Any] = {
            "bootstrap_servers": list(config.bootstrap_servers),
            "retry_backoff_ms": RETRY_BACKOFF_MILLISECONDS,
            "security_protocol": ("SASL_" if config.sasl else "") + ("SSL" if config.tls.enabled else "PLAINTEXT"),
        }
        if config.tls.enabled:
            self._options["ssl_context"] = _context(config.tls)
        if config.sasl is not None:
            self._options |= {
                "sasl_mechanism": config.sasl.mechanism,
                "sasl_plain_username": config.sasl.username,
                "sasl_plain_password": _password(config.sasl),
            }

    def options(self, purpose: str, request_timeout_seconds: float) -> dict[str, Any]:
        """For one client. `purpose` stands in the brokers' logs and quotas."""
        return {
            **self._options,
            "client_id": f"{self._name}-{purpose}",
            "request_timeout_ms": round(request_timeout_seconds * 1000),
        }


def _context(config: KafkaTlsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.certificate_file is not None:
            context.load_cert_chain(config.certificate_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (config.ca_file, config.certificate_file, config.key_file)))
        raise LogUnavailable(f"log.kafka.tls: {files} cannot be used: {error}") from error
    return context


def _password(config: KafkaSaslConfig) -> str:
    if config.password is not None:
        return config.password.get_secret_value()
    assert config.password_file is not None
    try:
        return Path(config.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LogUnavailable(f"log.kafka.sasl.password_file: {config.password_file} cannot be read: {error}") from error
