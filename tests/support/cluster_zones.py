"""Zone files for the cluster's DNS: what a domain owner and an address owner would publish.

Owns the files of one run and takes them away. A change is written with a new serial, and is waited for: CoreDNS looks every two
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.resolver

from tests.support.kubectl import eventually


@dataclass(slots=True)
class Zones:
    """The records of one run: under `zone`, and the reverse names of the addresses.

    Attributes:
        records: by name relative to `zone`, type and value as in a zone file.
        pointers: by address, its name; None: it has none.
    """

    folder: Path
    zone: str
    records: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    pointers: dict[str, str | None] = field(default_factory=dict)
    _serial: int = field(default_factory=lambda: int(time.time()))

    def host(self, name: str, address: str) -> str:
        """A host with an address and a pointer back; returns its full name."""
        full = f"{name}.{self.zone}"
        self.records[name] = [("A", address)]
        self.pointers[address] = full
        return full

    def receiver(self, name: str, *addresses: str) -> str:
        """A domain with a mail host at each address; returns its full name."""
        for number, address in enumerate(addresses, 1):
            host = self.host(f"mx{number}.{name}", address)
            self.records.setdefault(name, []).append(("MX", f"{number}0 {host}."))
        return f"{name}.{self.zone}"

    def text(self, name: str, value: str) -> None:
        """A TXT record, instead of those that the name has."""
        pieces = " ".join(f'"{value[start : start + 250]}"' for start in range(0, len(value), 250))
        kept = [record for record in self.records.get(name, ()) if record[0] != "TXT"]
        self.records[name] = [*kept, ("TXT", pieces)]

    def write(self) -> None:
        """Publish, and return when the cluster's DNS answers with it."""
        self._serial += 1
        self._write(self.zone, [(name, kind, value) for name, all_of in self.records.items() for kind, value in all_of])
        for network, addresses in self._networks().items():
            names = ((address.rsplit(".", 1)[1], "PTR", f"{self.pointers[address]}.") for address in addresses)
            self._write(network, [entry for entry in names if entry[2] != "None."])
        for zone in (self.zone, *self._networks()):
            eventually(f"the cluster's DNS has the zone {zone}", partial(self._answered, zone), 30.0)

    def remove(self) -> None:
        """Take the files away."""
        for zone in (self.zone, *self._networks()):
            (self.folder / f"db.{zone}").unlink(missing_ok=True)

    def _networks(self) -> dict[str, list[str]]:
        """By reverse zone (a /24), the addresses in it."""
        found: dict[str, list[str]] = {}
        for address in self.pointers:
            zone = ip_address(address).reverse_pointer.split(".", 1)[1]
            found.setdefault(zone, []).append(address)
        return found

    def _write(self, zone: str, entries: Iterable[tuple[str, str, str]]) -> None:
        lines = [
            f"$ORIGIN {zone}.",
            "$TTL 2",
            f"@ IN SOA ns.{zone}. hostmaster.{zone}. {self._serial} 60 60 3600 2",
            "@ IN NS ns",
            *(f"{name or '@'} IN {kind} {value}" for name, kind, value in entries),
        ]
        new = self.folder / f".{zone}.new"
        new.write_text("\n".join(lines) + "\n", encoding="ascii")
        new.replace(self.folder / f"db.{zone}")

    def _answered(self, zone: str) -> bool:
        try:
            answer = dns.resolver.resolve(f"{zone}.", "SOA", search=False, lifetime=2.0)
        except dns.exception.DNSException:
            return False
        return any(getattr(record, "serial", 0) == self._serial for record in answer)
