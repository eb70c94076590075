"""The certificate that our listeners show, read again when its files change.

Owns the server's TLS settings (RFC 8996: TLS 1.2 and newer) and the rule that a certificate that cannot be read never
replaces one that works. Neighbours: ingress asks for `context` at each handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from prometheus_client import Counter, Gauge

from postrail.core.ingress_config import TLSConfig
from postrail.shell import logs

LOG = logs.logger("tls")

# No labels. Alert when it grows: the certificate on disk cannot be used, and the old one is shown until it expires.
RELOAD_FAILURES = Counter("postrail_tls_certificate_reload_failures_total", "Certificates that could not be read again")
# No labels. Unix time at which the certificate in use was read; for looking, not for alerts.
LOADED_AT = Gauge("postrail_tls_certificate_loaded_timestamp_seconds", "When the certificate in use was read")


class CertificateError(Exception):
    """The certificate cannot be used; the message names the files and the reason."""


class ServerCertificate:
    """A TLS context that follows its files. `context` changes when they do; sessions under way keep theirs."""

    def __init__(self, config: TLSConfig) -> None:
        self._config = config
        self._stamp = self._read_stamp()
        self._task: asyncio.Task[None] | None = None
        self.context = self._load()

    def start(self) -> None:
        """Watch the files from now on."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def refresh(self) -> bool:
        """Read the files again if they changed; returns whether a new certificate is in use."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.context = self._load()
        except CertificateError as error:
            RELOAD_FAILURES.inc()
            LOG.error(
                "certificate_not_reloaded", reason=str(error), advice="the previous one stays in use; repair the files"
            )
            return False
        LOG.info("certificate_reloaded", file=self._config.certificate_file)
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._config.reload_seconds)
            self.refresh()

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file is written or replaced; missing files count as a state of their own."""
        found = []
        for name in (self._config.certificate_file, self._config.key_file):
            try:
                status = Path(name).stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._config.certificate_file, self._config.key_file)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"the certificate {self._config.certificate_file} with the key {self._config.key_file} cannot be used: {error}"
            ) from error
        LOADED_AT.set_to_current_time()
        return context
