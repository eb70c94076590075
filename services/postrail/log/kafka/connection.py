"""How the brokers are reached: addresses, TLS, SASL, names of this client.

Owns the translation of the configuration into aiokafka's arguments. It opens nothing; passwords go nowhere else.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from postrail.core.log_config import KafkaConfig, KafkaSaslConfig, KafkaTlsConfig
from postrail.log.interface import LogUnavailable

RETRY_BACKOFF_MILLISECONDS = 100


class Connection:
    """Makes the arguments of aiokafka's clients.

    Raises:
        LogUnavailable: a certificate, a key or the password's file cannot be used; the text says which.
    """

    def __init__(self, config: KafkaConfig, instance: str | None) -> None:
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
