"""Which checks the objects ask for: of every address its name and block lists, of every domain its keys, SPF and DMARC. Pure.

Owns what is to be asked, and which domains' mail leaves from which addresses. `checker` asks, `findings` makes conditions of the
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from postrail.core.address import BadAddress, ascii_domain
from postrail.core.checks import CheckResult
from postrail.core.conditions import Reason
from postrail.core.dkim_record import PublicKey
from postrail.core.ingress_config import SubmitterConfig
from postrail.core.kind_specs import SendingDomainSpec, SubmitterSpec
from postrail.core.submission import Submitter
from postrail_operator import keys
from postrail_operator.compose import Composition
from postrail_operator.leases import Lease
from postrail_operator.objects import Item, Objects

DOMAINS_OF_AN_ADDRESS = 200
"""For how many domains' records an address is looked up; the messages say so where there are more."""


@dataclass(frozen=True, slots=True)
class PtrCheck:
    """Whether the address has the name, and the name the address."""

    address: str
    ehlo: str


@dataclass(frozen=True, slots=True)
class ListedCheck:
    """Whether a block list has the address."""

    address: str


@dataclass(frozen=True, slots=True)
class SpfCheck:
    """Whether the record of the domain allows the address."""

    domain: str
    address: str
    ehlo: str


@dataclass(frozen=True, slots=True)
class DkimCheck:
    """Whether the DNS publishes the key."""

    domain: str
    selector: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class DmarcCheck:
    """Whether a policy applies to the domain, and mail that is signed by it satisfies that."""

    domain: str
    signed: bool


Wanted = PtrCheck | ListedCheck | SpfCheck | DkimCheck | DmarcCheck
Answers = Mapping[Wanted, CheckResult]


def wanted(objects: Objects, made: Composition) -> frozenset[Wanted]:
    """Every check that the objects ask for."""
    found: set[Wanted] = set()
    for lease in made.leases:
        source = lease.address
        found |= {PtrCheck(source.address, source.ehlo), ListedCheck(source.address)}
    routes = Routes.of(objects, made)
    for lease in made.leases:
        found |= set(spf_of_address(lease, routes))
    for item in objects.domains:
        if item.spec is not None:
            found |= {*dkim_checks(item, objects), *spf_of_domain(item.spec.domain, routes), dmarc_check(item, objects)}
    return frozenset(found)


def dkim_checks(item: Item[SendingDomainSpec], objects: Objects) -> list[DkimCheck]:
    """Of every usable key of a domain."""
    assert item.spec is not None
    found = []
    for key in item.spec.dkim.keys:
        try:
            public = keys.public_key(keys.entry(objects.secrets, key.secret_ref))
        except (keys.Missing, keys.Unusable):
            continue
        found.append(DkimCheck(item.spec.domain, key.selector, public))
    return found


def dmarc_check(item: Item[SendingDomainSpec], objects: Objects) -> DmarcCheck:
    """Of a domain. Its return path is the submitters', so that only the signature counts."""
    assert item.spec is not None
    return DmarcCheck(item.spec.domain, bool(dkim_checks(item, objects)))


def spf_of_address(lease: Lease, routes: Routes) -> list[SpfCheck]:
    """Of the domains whose mail leaves from an address, the first ones."""
    source = lease.address
    domains = routes.domains(lease)[:DOMAINS_OF_AN_ADDRESS]
    return [SpfCheck(domain, source.address, source.ehlo) for domain in domains]


def spf_of_domain(domain: str, routes: Routes) -> list[SpfCheck]:
    """Of the addresses from which a domain's mail leaves."""
    return [SpfCheck(domain, lease.address.address, lease.address.ehlo) for lease in routes.leases(domain)]


@dataclass(frozen=True, slots=True)
class Routes:
    """From which addresses the mail of which domain leaves.

    Attributes:
        by_domain: the SenderPools of the submitters that may send as the domain.
        every: leases from which mail can leave.
    """

    by_domain: Mapping[str, frozenset[str]]
    every: tuple[Lease, ...]

    @classmethod
    def of(cls, objects: Objects, made: Composition) -> Routes:
        """The routes of all objects.

        A domain that no submitter may send as yet counts as sending from every address, so that its records can be prepared.
        """
        sending = [item.spec.domain for item in objects.domains if item.spec is not None]
        by_domain: dict[str, set[str]] = {domain: set() for domain in sending}
        for item in objects.submitters:
            if item.spec is not None and not item.deleting:
                pools = pools_of(item, objects, made)
                for domain in _domains_of(item, sending):
                    by_domain.setdefault(domain, set()).update(pools)
        leases = tuple(lease for lease in made.leases if lease.sends)
        return cls({domain: frozenset(pools) for domain, pools in by_domain.items()}, leases)

    def leases(self, domain: str) -> list[Lease]:
        """From where a domain's mail leaves."""
        pools = self.by_domain.get(domain, frozenset())
        return [lease for lease in self.every if not pools or lease.leased_to in pools]

    def domains(self, lease: Lease) -> list[str]:
        """Whose mail leaves from an address, in the order of the alphabet."""
        if not lease.sends:
            return []
        return sorted(domain for domain, pools in self.by_domain.items() if not pools or lease.leased_to in pools)


def pools_of(item: Item[SubmitterSpec], objects: Objects, made: Composition) -> list[str]:
    """The SenderPools that send a submitter's mail, that of its own stream first."""
    by_stream = {
        pool.spec.stream: pool.name
        for pool in reversed(objects.sender_pools)
        if pool.spec is not None and not _without_stream(pool.key, made)
    }
    if item.spec is None:
        return []
    return list(dict.fromkeys(by_stream[name] for name in (item.spec.stream, *item.spec.streams) if name in by_stream))


def _without_stream(key: tuple[str, str], made: Composition) -> bool:
    fault = made.faults.get(key)
    return fault is not None and fault.reason is Reason.STREAM_TAKEN


def _domains_of(item: Item[SubmitterSpec], sending: Iterable[str]) -> Iterable[str]:
    """The domains that a submitter may send as: those that it names, and of the sending domains those that its patterns match."""
    assert item.spec is not None
    try:
        submitter = Submitter.of(SubmitterConfig(name=item.name, domains=item.spec.domains))
    except BadAddress:
        return
    yield from (name for name in submitter.exact if name != "*")
    if submitter.everything or submitter.suffixes:
        yield from (domain for domain in sending if submitter.owns(ascii_domain(domain)))
