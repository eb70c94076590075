"""A small authoritative DNS server on loopback, over UDP and TCP, for the domains of a simulation.

Owns the zone data and the answers. Whatever it does not know does not exist (NXDOMAIN), so that nothing in a simulation ever
reaches the real network. Failures can be switched on for single names.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

TTL_SECONDS = 60
_SOA = "ns.invalid. hostmaster.invalid. 1 60 60 60 1"
_MAX_UDP_BYTES = 1232


class Fault(Enum):
    """How a name fails."""

    SERVFAIL = "servfail"
    SILENCE = "silence"


class DnsServer:
    """`start()` binds; `port` is then the same for UDP and TCP. Records can be changed while it runs."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.queries = 0
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], list[dns.rdata.Rdata]] = {}
        self._names: set[dns.name.Name] = set()
        self._faults: dict[dns.name.Name, Fault] = {}
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    def add(self, name: str, kind: str, *values: str) -> None:
        """Add records, such as `add("example.org", "MX", "10 mx1.example.org.")`. Values as in a zone file."""
        owner = dns.name.from_text(name)
        rdtype = dns.rdatatype.from_text(kind)
        records = self._records.setdefault((owner, rdtype), [])
        records.extend(dns.rdata.from_text(dns.rdataclass.IN, rdtype, value) for value in values)
        while owner != dns.name.root:
            self._names.add(owner)
            owner = owner.parent()

    def remove(self, name: str) -> None:
        """Make a name unknown."""
        owner = dns.name.from_text(name)
        self._names.discard(owner)
        for key in [key for key in self._records if key[0] == owner]:
            del self._records[key]

    def fail(self, name: str, fault: Fault | None) -> None:
        """Let questions about a name fail; None heals it."""
        owner = dns.name.from_text(name)
        if fault is None:
            self._faults.pop(owner, None)
        else:
            self._faults[owner] = fault

    def txt(self, name: bytes) -> bytes | None:
        """The TXT record at a name, its strings joined: what a DKIM verifier asks for."""
        records = self._records.get((dns.name.from_text(name.decode("ascii")), dns.rdatatype.TXT))
        return b"".join(records[0].strings) if records else None  # type: ignore[attr-defined]

    async def start(self) -> None:
        """Bind a port that is free for both UDP and TCP."""
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._tcp = await asyncio.start_server(self._serve_tcp, self.address, self.port)
            port = int(self._tcp.sockets[0].getsockname()[1])
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=(self.address, port))
            except OSError:
                self._tcp.close()
                continue
            self.port = port
            return
        raise OSError(f"no port on {self.address} is free for both UDP and TCP")

    async def stop(self) -> None:
        """Release the port."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The answer to one question; None where none is given."""
        self.queries += 1
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        fault = self._faults.get(question.name)
        if fault is Fault.SILENCE:
            return None
        if fault is Fault.SERVFAIL:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        self._fill(response, question.name, question.rdtype)
        encoded = response.to_wire()
        if udp and len(encoded) > _MAX_UDP_BYTES:
            truncated = dns.message.make_response(query)
            truncated.flags |= dns.flags.TC
            return truncated.to_wire()
        return encoded

    def _fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        records = self._records.get((name, rdtype))
        if records:
            response.answer.append(dns.rrset.from_rdata_list(name, TTL_SECONDS, records))
            return
        if name not in self._names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text(dns.name.root, TTL_SECONDS, "IN", "SOA", _SOA))

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                answer = self.answer(await reader.readexactly(length), udp=False)
                if answer is not None:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # CPython's own is not declared as one

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)
