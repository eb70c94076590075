"""The simulated world: providers, small sites and dead ends, their DNS records, and how each behaves.

Owns who lives there. The large providers use the names of their real MX hosts, so that the built-in profiles apply to them;
all addresses are loopback and the DNS server knows nothing else, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from postrail.demo.dns_server import DnsServer, Fault
from postrail.demo.habits import Habits
from postrail.demo.receivers import Received, Receiver

SENDER_DOMAIN = "shop.example"
SENDER_HOST = "mail.shop.example"
BOUNCE_HOST = "mx.shop.example"


@dataclass(frozen=True, slots=True)
class Place:
    """One destination: a domain, its mail hosts (name, loopback address), its part of the mail and its habits.

    Attributes:
        share: parts of all mail.
        about: for the summary.
        unknown_share, full_share: fraction of its recipients that do not exist, or have a full mailbox.
        opens_after: seconds during which connections are refused.
        dns: MX records instead of those of `hosts`: "null" or "none" (NXDOMAIN); "fails" until `opens_after`.
    """

    domain: str
    share: int
    about: str
    hosts: tuple[tuple[str, str], ...] = ()
    tls: bool = True
    unknown_share: float = 0.0
    full_share: float = 0.0
    opens_after: float = 0.0
    latency_seconds: float = 0.0
    dns: str = ""
    greylist_seconds: float = 0.0
    messages_per_connection: int = 0
    messages_per_second: int = 0
    full_until: float = 0.0
    away: tuple[float, float] = (0.0, 0.0)


PLACES = (
    Place(
        "gmail.example",
        30,
        "like Gmail: TLS, unknown users",
        (("gmail-smtp-in.l.google.com", "127.0.1.1"), ("alt1.gmail-smtp-in.l.google.com", "127.0.1.2")),
        unknown_share=0.02,
        latency_seconds=0.01,
    ),
    Place(
        "yahoo.example",
        15,
        "like Yahoo: defers what comes too fast",
        (("mta5.am0.yahoodns.net", "127.0.1.3"), ("mta6.am0.yahoodns.net", "127.0.1.4")),
        messages_per_second=30,
        unknown_share=0.01,
    ),
    Place(
        "outlook.example",
        15,
        "like Microsoft: hangs up after 30 messages",
        (("outlook-example.mail.protection.outlook.com", "127.0.1.5"),),
        messages_per_connection=30,
        latency_seconds=0.02,
    ),
    Place(
        "icloud.example",
        8,
        "like Apple: 5 messages a connection",
        (("mx01.mail.icloud.com", "127.0.1.6"), ("mx02.mail.icloud.com", "127.0.1.7")),
        messages_per_connection=5,
    ),
    Place("bakery.example", 6, "small, without TLS", (("mx.bakery.example", "127.0.1.8"),), tls=False),
    Place("library.example", 6, "greylists", (("mx.library.example", "127.0.1.9"),), greylist_seconds=0.5),
    Place(
        "school.example",
        5,
        "full mailboxes, emptied later",
        (("mx.school.example", "127.0.1.10"),),
        full_share=0.4,
        full_until=5.0,
    ),
    Place("city.example", 5, "goes away for a while (421)", (("mx.city.example", "127.0.1.11"),), away=(0.5, 6.0)),
    Place("startup.example", 4, "down at first", (("mx.startup.example", "127.0.1.12"),), opens_after=6.0),
    Place(
        "clinic.example", 3, "DNS fails at first", (("mx.clinic.example", "127.0.1.13"),), dns="fails", opens_after=4.0
    ),
    Place("parked.example", 1, "takes no mail (null MX)", dns="null"),
    Place("tpyo.example", 1, "does not exist", dns="none"),
)


@dataclass(slots=True)
class World:
    """All of it, running. `port` is the one SMTP port of all receivers."""

    on_received: Callable[[Place, Received], None]
    on_notification: Callable[[Received], None]
    certificate: ssl.SSLContext
    places: tuple[Place, ...] = PLACES
    dns: DnsServer = field(default_factory=DnsServer)
    port: int = 0
    receivers: dict[str, list[Receiver]] = field(default_factory=dict)
    _began: float | None = None
    _openings: list[asyncio.Task[None]] = field(default_factory=list)

    def elapsed(self) -> float:
        """Seconds since `begin`; 0 before."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    async def start(self) -> None:
        """Start the DNS server and the receivers that are up from the beginning."""
        await self.dns.start()
        self.port = _free_port([address for place in self.places for _, address in place.hosts])
        bounces = Receiver(BOUNCE_HOST, "127.0.1.100", self.port, Habits(self.elapsed), self.on_notification)
        self.receivers[SENDER_DOMAIN] = [bounces]
        self._publish(SENDER_DOMAIN, ((BOUNCE_HOST, bounces.address),))
        await bounces.start()
        for place in self.places:
            self.receivers[place.domain] = self._build(place)
            if place.dns == "null":
                self.dns.add(place.domain, "MX", "0 .")
            elif place.dns != "none":
                self._publish(place.domain, place.hosts)
            if place.dns == "fails":
                self.dns.fail(place.domain, Fault.SERVFAIL)
            if not place.opens_after or place.dns:
                await self._open(place)

    def begin(self) -> None:
        """Start the clock that the habits follow."""
        self._began = time.monotonic()
        self._openings = [asyncio.create_task(self._open_later(place)) for place in self.places if place.opens_after]

    async def stop(self) -> None:
        """End all servers and connections."""
        for task in self._openings:
            task.cancel()
        await asyncio.gather(*self._openings, return_exceptions=True)
        for receiver in self.all_receivers():
            await receiver.stop()
        await self.dns.stop()

    def all_receivers(self) -> list[Receiver]:
        return [receiver for receivers in self.receivers.values() for receiver in receivers]

    def refusals(self, domain: str) -> Counter[str]:
        """How often the hosts of a domain refused, by reply code."""
        total: Counter[str] = Counter()
        for receiver in self.receivers.get(domain, []):
            total.update(receiver.refusals)
        return total

    def _build(self, place: Place) -> list[Receiver]:
        habits = Habits(
            self.elapsed,
            place.greylist_seconds,
            place.messages_per_connection,
            place.messages_per_second,
            place.full_until,
            place.away,
        )
        return [
            Receiver(
                name,
                address,
                self.port,
                habits,
                lambda received: self.on_received(place, received),
                self.certificate if place.tls else None,
                latency_seconds=place.latency_seconds,
            )
            for name, address in place.hosts
        ]

    def _publish(self, domain: str, hosts: tuple[tuple[str, str], ...]) -> None:
        for preference, (name, address) in enumerate(hosts, 1):
            self.dns.add(domain, "MX", f"{preference * 10} {name}.")
            self.dns.add(name, "A", address)

    async def _open(self, place: Place) -> None:
        for receiver in self.receivers[place.domain]:
            await receiver.start()

    async def _open_later(self, place: Place) -> None:
        await asyncio.sleep(place.opens_after)
        if place.dns == "fails":
            self.dns.fail(place.domain, None)
        else:
            await self._open(place)


def _free_port(addresses: list[str]) -> int:
    """A TCP port that is free on all these addresses."""
    for _ in range(50):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind((addresses[0], 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                for address in addresses[1:]:
                    stack.enter_context(socket.socket()).bind((address, port))
                return port
    raise OSError("no port is free on all loopback addresses of the demonstration (127.0.1.1 and following)")
