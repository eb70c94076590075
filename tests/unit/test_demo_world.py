"""The simulated world's data: the DNS answers, the mailing, and that nothing of it points beyond this machine."""

from ipaddress import ip_address

import dns.message
import dns.rcode
import dns.rdatatype

from postrail.core.dns_answers import MxHost
from postrail.core.routing_config import RoutingConfig
from postrail.core.sites import SiteTable
from postrail.demo.dns_server import DnsServer, Fault
from postrail.demo.ledger import body_digest, ledger_id_of
from postrail.demo.mailing import letters
from postrail.demo.world import PLACES


def ask(server: DnsServer, name: str, kind: str, *, udp: bool = True) -> dns.message.Message:
    wire = server.answer(dns.message.make_query(name, kind).to_wire(), udp=udp)
    assert wire is not None
    return dns.message.from_wire(wire)


def test_records_are_answered_and_all_else_does_not_exist() -> None:
    server = DnsServer()
    server.add("rcpt.example", "MX", "10 mx1.rcpt.example.", "20 mx2.rcpt.example.")
    server.add("mx1.rcpt.example", "A", "127.0.1.1")
    answer = ask(server, "rcpt.example", "MX")
    assert sorted(record.to_text() for record in answer.answer[0]) == ["10 mx1.rcpt.example.", "20 mx2.rcpt.example."]
    assert ask(server, "rcpt.example", "A").rcode() == dns.rcode.NOERROR
    assert not ask(server, "rcpt.example", "A").answer
    assert ask(server, "example", "A").rcode() == dns.rcode.NOERROR
    assert ask(server, "google.com", "MX").rcode() == dns.rcode.NXDOMAIN
    server.remove("rcpt.example")
    assert ask(server, "rcpt.example", "MX").rcode() == dns.rcode.NXDOMAIN


def test_faults_come_and_go() -> None:
    server = DnsServer()
    server.add("rcpt.example", "A", "127.0.1.1")
    query = dns.message.make_query("rcpt.example", "A").to_wire()
    server.fail("rcpt.example", Fault.SERVFAIL)
    assert ask(server, "rcpt.example", "A").rcode() == dns.rcode.SERVFAIL
    server.fail("rcpt.example", Fault.SILENCE)
    assert server.answer(query, udp=True) is None
    server.fail("rcpt.example", None)
    assert ask(server, "rcpt.example", "A").answer


def test_long_answers_are_truncated_over_udp_only() -> None:
    server = DnsServer()
    server.add("big.example", "TXT", *(f'"{index}{"x" * 200}"' for index in range(20)))
    assert ask(server, "big.example", "TXT").flags & dns.flags.TC
    assert len(ask(server, "big.example", "TXT", udp=False).answer[0]) == 20


def test_garbage_is_not_answered() -> None:
    assert DnsServer().answer(b"\0\1", udp=True) is None


def test_txt_records_are_joined() -> None:
    server = DnsServer()
    server.add("k._domainkey.shop.example", "TXT", '"v=DKIM1; " "p=abc"')
    assert server.txt(b"k._domainkey.shop.example.") == b"v=DKIM1; p=abc"
    assert server.txt(b"other.example") is None


def test_every_receiver_is_on_a_loopback_address_of_its_own() -> None:
    addresses = [address for place in PLACES for _, address in place.hosts]
    assert all(ip_address(address).is_loopback for address in addresses)
    assert len(set(addresses)) == len(addresses)


def test_large_providers_are_recognised_as_such() -> None:
    table = SiteTable(RoutingConfig())
    found = {
        place.domain: table.of(place.domain, [MxHost(10, host) for host, _ in place.hosts]).provider
        for place in PLACES[:5]
    }
    assert found == {
        "gmail.example": "gmail",
        "yahoo.example": "yahoo",
        "outlook.example": "microsoft",
        "icloud.example": "apple",
        "bakery.example": "",
    }


def test_mailing_is_personal_and_the_same_for_a_seed() -> None:
    first, again = list(letters(300, PLACES, 7)), list(letters(300, PLACES, 7))
    assert [letter.body_sha256 for letter in first] == [letter.body_sha256 for letter in again]
    assert len({letter.recipient for letter in first}) == 300
    assert len({letter.body_sha256 for letter in first}) == 300
    assert {letter.recipient.partition("@")[2] for letter in first} == {place.domain for place in PLACES}
    assert [letter.body_sha256 for letter in letters(300, PLACES, 8)] != [letter.body_sha256 for letter in first]


def test_letters_are_well_formed() -> None:
    for letter in letters(50, PLACES, 1):
        assert ledger_id_of(letter.content) == letter.ledger_id
        assert body_digest(letter.content) == letter.body_sha256
        assert letter.content.count(b"\n") == letter.content.count(b"\r\n") == letter.content.count(b"\r")
        assert letter.content.endswith(b"\r\n")
        assert b"\r\n.Order" in letter.content
        assert letter.content.partition(b"\r\n\r\n")[0].isascii()
