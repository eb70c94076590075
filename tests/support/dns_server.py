"""A real DNS server on a loopback port: Knot, serving zones that a test gives as text.

Owns the server's configuration and its end. Zones are authoritative; a name outside them is answered REFUSED. A zone whose
text is BROKEN is configured without its data, and answered SERVFAIL. Its neighbour: `processes`, which starts programs.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from tests.support.processes import Daemon, daemon_folder
from tests.support.tools import require_tool

ADDRESS = "127.0.0.1"
BROKEN = ""
"""The text of a zone that cannot be loaded."""

_SOA = "@ {ttl} IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 {negative_ttl}\n@ {ttl} IN NS ns.{zone}.\n"
_PROBE = "probe.invalid"


def zone_text(name: str, records: str, *, ttl: int = 300, negative_ttl: int = 60) -> str:
    """Records with the SOA and NS that a zone needs; names without a final dot are below `name`."""
    return f"$ORIGIN {name}.\n$TTL {ttl}\n" + _SOA.format(zone=name, ttl=ttl, negative_ttl=negative_ttl) + records


class DnsServer:
    """A running server.

    Attributes:
        host, port: where it answers, over UDP and TCP.
        nameserver: the same as `routing.dns.nameservers` wants it.
    """

    def __init__(self, zones: Mapping[str, str], folder: Path) -> None:
        program = require_tool("knotd", "it serves the zones of the DNS tests")
        self.host, self.port = ADDRESS, _free_port_for_both()
        self.nameserver = f"{self.host}:{self.port}"
        self._folder = folder
        (folder / "knot.conf").write_text(self._configuration([*zones, _PROBE]), encoding="utf-8")
        for name, text in {**zones, _PROBE: zone_text(_PROBE, "@ IN A 192.0.2.1\n")}.items():
            if text != BROKEN:
                self._zone_file(name).write_text(text, encoding="utf-8")
        self._daemon = Daemon([program, "-c", folder / "knot.conf"], folder / "knot.log")
        self._daemon.wait_until(f"answers on port {self.port}", self._answers)

    def change(self, name: str, text: str) -> None:
        """Give a zone of this server another text, such as to repair a BROKEN one; it counts a moment later."""
        self._zone_file(name).write_text(text, encoding="utf-8")
        self._daemon.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it; questions are answered no more."""
        self._daemon.stop()

    def _zone_file(self, name: str) -> Path:
        return self._folder / f"{name}.zone"

    def _configuration(self, names: list[str]) -> str:
        zones = "".join(f'  - domain: "{name}"\n    file: "{self._zone_file(name)}"\n' for name in names)
        return (
            f'server:\n    rundir: "{self._folder}"\n    listen: {self.host}@{self.port}\n'
            "    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n"
            f'database:\n    storage: "{self._folder}"\n'
            "log:\n  - target: stderr\n    any: info\n"
            f"template:\n  - id: default\n    zonefile-load: whole\n    journal-content: none\nzone:\n{zones}"
        )

    def _answers(self) -> bool:
        query = dns.message.make_query(_PROBE, dns.rdatatype.A)
        try:
            return bool(dns.query.udp(query, self.host, port=self.port, timeout=0.3).answer)
        except (dns.exception.DNSException, OSError):
            return False


@contextlib.contextmanager
def serving(zones: Mapping[str, str]) -> Iterator[DnsServer]:
    """A server of these zones (name → text, as `zone_text` makes it) for the time of a `with`."""
    with daemon_folder("dns") as folder:
        server = DnsServer(zones, folder)
        try:
            yield server
        finally:
            server.stop()


def _free_port_for_both() -> int:
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind((ADDRESS, 0))
            port = int(udp.getsockname()[1])
            with contextlib.suppress(OSError):
                tcp.bind((ADDRESS, port))
                return port
