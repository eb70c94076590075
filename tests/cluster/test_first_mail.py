"""The whole system, as a person installs it: mail submitted in the cluster arrives outside, from the pool's addresses, signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dns.resolver

from tests.support.cluster_books import Injector, settle
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import SELECTOR, Release
from tests.support.smtp_tools import verify_with_mail_dkim


def name_server() -> str:
    """The one that the cluster's pods ask."""
    return str(dns.resolver.get_default_resolver().nameservers[0])


def test_mail_arrives_from_the_pools_addresses_and_signed(
    release: Release, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    injector = inject(count=60, most_recipients=3, sizes_bytes=[300, 5000, 400_000])
    balance = settle([injector], receivers, injector.prefix)
    assert balance.is_even, balance
    assert balance.delivered == balance.accepted > 60
    pool = set(release.place.pool[:2])
    arrivals = receivers.arrivals(injector.prefix)
    assert {arrival.received.client_address for arrival in arrivals} == pool
    assert {arrival.received.helo for arrival in arrivals} == {release.zones.pointers[address] for address in pool}
    assert {arrival.received.reverse_path for arrival in arrivals} == {f"orders@{release.domain}"}
    assert all(arrival.received.tls for arrival in arrivals), "the receivers offer STARTTLS"
    for arrival in arrivals[:10]:
        (signature,) = verify_with_mail_dkim(arrival.received.content, name_server(), 53)
        assert (signature.domain, signature.selector, signature.result) == (release.domain, SELECTOR, "pass")


def test_submission_over_tls_from_the_first_byte(
    release: Release, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    injector = inject(count=5, port=465, kind="submissions")
    balance = settle([injector], receivers, injector.prefix)
    assert balance.is_even, balance
    assert balance.delivered == 5


def test_large_bodies_lie_in_the_object_storage(
    release: Release, folder: Path, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    before = stored(folder)
    injector = inject(count=2, sizes_bytes=[700_000])
    assert settle([injector], receivers, injector.prefix).is_even
    assert stored(folder) > before


def stored(folder: Path) -> int:
    """How many bodies the S3 server has."""
    return sum(path.is_file() for path in (folder / "s3" / "buckets").rglob("*"))


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", "--timeout", "3m")


def test_mail_of_a_domain_that_is_not_the_submitters_is_refused(
    release: Release, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    injector = inject(count=2, sender=f"orders@other.{release.place.zone}")
    said = injector.wait()
    assert len(said.refused) == 2
    assert not said.accepted
    assert not receivers.arrivals(injector.prefix)
