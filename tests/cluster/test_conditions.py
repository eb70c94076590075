"""What is wrong with addresses and domains stands in the objects' status: each condition goes wrong once, and well again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import pytest

from postrail.core import dkim_record
from tests.support.cluster_books import Injector, settle
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import SELECTOR, Release, ours
from tests.support.cluster_zones import Zones
from tests.support.kubectl import Kubectl, Manifest, condition, eventually

SECONDS = 120.0
STREAM = "checked"
Told = tuple[str, str]
"""A condition's status and reason."""


def of_address(release: Release, pool: str, address: str) -> Manifest:
    """An address in the status of an IPPool; {} where it is not there."""
    entries = ((release.kubectl.get("ippool", pool) or {}).get("status") or {}).get("addresses", ())
    return next((one for one in entries if one["address"] == address), {})


def told(body: Mapping[str, Any] | None, kind: str) -> Told:
    found = condition(body, kind)
    return str(found.get("status", "")), str(found.get("reason", ""))


def address_says(release: Release, pool: str, address: str, **expected: Told) -> None:
    """Wait until an address has these conditions."""

    def says() -> bool:
        entry = {"status": of_address(release, pool, address)}
        return all(told(entry, kind) == what for kind, what in expected.items())

    eventually(f"{address} of ippool/{pool} has {expected}", says, SECONDS)


def object_says(release: Release, kind: str, name: str, **expected: Told) -> None:
    """Wait until an object has these conditions."""

    def says() -> bool:
        body = release.kubectl.get(kind, name)
        return all(told(body, one) == what for one, what in expected.items())

    eventually(f"{kind}/{name} has {expected}", says, SECONDS)


@pytest.fixture(scope="module")
def pool(release: Release) -> Iterator[tuple[str, str, str]]:
    """The IPPool `checked`, with automation: two addresses of the node, and one that no node has."""
    first, second = release.place.pool[2:4]
    absent = first.rsplit(".", 1)[0] + ".99"
    release.zones.host("out99", absent)
    release.zones.write()
    pool = release.ip_pool("checked", first, second, absent)
    pool["spec"]["quarantine"] = "automatic"
    submitter = {
        "domains": [release.domain],
        "stream": STREAM,
        "passwordSecretRef": {"name": "password", "key": "hash"},
    }
    objects = [pool, release.sender_pool("checked", "checked", stream=STREAM), ours("Submitter", "checked", submitter)]
    release.kubectl.apply(*objects)
    yield first, second, absent
    remove(release, *objects)


def remove(release: Release, *objects: Manifest) -> None:
    """Delete objects, whether mail waits for them or not."""
    for one in reversed(objects):
        kind, name = one["kind"].lower(), one["metadata"]["name"]
        if kind == "senderpool":
            release.kubectl("annotate", kind, name, "postrail.io/abandon-queue=true", "--overwrite")
        release.kubectl.delete(kind, name, "--wait=false")
    for one in objects:
        kind, name = one["kind"].lower(), one["metadata"]["name"]
        eventually(f"{kind}/{name} is gone", partial(gone, release.kubectl, kind, name), SECONDS)


def gone(kubectl: Kubectl, kind: str, name: str) -> bool:
    return kubectl.get(kind, name) is None


def test_nothing_is_wrong_with_the_pool_that_sends(
    release: Release, receivers: Receivers, inject: Callable[..., Injector]
) -> None:
    injector = inject(count=20)
    assert settle([injector], receivers, injector.prefix).is_even
    well = ("True", "Verified")
    for address in release.place.pool[:2]:
        address_says(release, "main", address, Plumbed=well, PTRValid=well, SPFAuthorized=well, SourceVerified=well)
        address_says(release, "main", address, Listed=("False", "NotListed"), Quarantined=("False", "NotQuarantined"))
    object_says(
        release, "sendingdomain", "shop", Verified=well, DKIMPublished=well, SPFAuthorized=well, DMARCValid=well
    )
    status = (release.kubectl.get("sendingdomain", "shop") or {})["status"]
    assert status["verified"] == "3/3"


def test_wrong_pointer(release: Release, pool: tuple[str, str, str]) -> None:
    first, _, _ = pool
    name = release.zones.pointers[first]
    release.zones.pointers[first] = f"elsewhere.{release.place.zone}"
    release.zones.write()
    address_says(release, "checked", first, PTRValid=("False", "OtherName"))
    release.zones.pointers[first] = None
    release.zones.write()
    address_says(release, "checked", first, PTRValid=("False", "RecordMissing"))
    release.zones.pointers[first] = name
    release.zones.write()
    address_says(release, "checked", first, PTRValid=("True", "Verified"))


def test_address_that_the_node_lacks_is_quarantined(release: Release, pool: tuple[str, str, str]) -> None:
    first, second, absent = pool
    address_says(release, "checked", absent, Plumbed=("False", "NotOnThisMachine"))
    address_says(
        release, "checked", absent, Quarantined=("True", "ByAutomation"), SPFAuthorized=("False", "NotAuthorized")
    )
    entry = of_address(release, "checked", absent)
    assert entry["state"] == "Quarantined"
    assert (entry["quarantine"]["by"], entry["quarantine"]["cause"]) == ("automation", "NotOnThisMachine")
    for address in (first, second):
        address_says(release, "checked", address, Plumbed=("True", "Verified"), Quarantined=("False", "NotQuarantined"))


def test_listed_address_gets_no_new_mail_until_it_is_not_listed(release: Release, pool: tuple[str, str, str]) -> None:
    _, second, _ = pool
    record = f"{'.'.join(reversed(second.split('.')))}.bl"
    release.zones.records[record] = [("A", "127.0.0.2"), ("TXT", '"a test"')]
    release.zones.write()
    address_says(release, "checked", second, Listed=("True", "Listed"), Quarantined=("True", "ByAutomation"))
    assert of_address(release, "checked", second)["quarantine"]["cause"] == "Listed"
    events = release.kubectl.every("events")
    about = [one for one in events if one["involvedObject"]["name"] == "checked" and one["reason"] == "Listed"]
    assert about
    assert second in about[0]["message"]
    del release.zones.records[record]
    release.zones.write()
    address_says(release, "checked", second, Listed=("False", "NotListed"), Quarantined=("False", "NotQuarantined"))
    assert "quarantine" not in of_address(release, "checked", second)


def test_quarantine_by_a_person(release: Release, pool: tuple[str, str, str]) -> None:
    first, _, _ = pool
    release.kubectl("annotate", "ippool", "checked", f"postrail.io/quarantine={first}")
    address_says(release, "checked", first, Quarantined=("True", "ByAnnotation"))
    assert of_address(release, "checked", first)["quarantine"]["by"] == "annotation"
    release.kubectl("annotate", "ippool", "checked", "postrail.io/quarantine-")
    address_says(release, "checked", first, Quarantined=("False", "NotQuarantined"))


def test_address_of_another_pool_names_that_pool(release: Release) -> None:
    taken = release.place.pool[0]
    second = release.ip_pool("second", taken)
    release.kubectl.apply(second)
    object_says(release, "ippool", "second", Accepted=("False", "AddressTaken"))
    message = condition(release.kubectl.get("ippool", "second"), "Accepted")["message"]
    assert f"the IPPool main has {taken}" in message
    remove(release, second)


def test_domain_without_records(release: Release) -> None:
    zones = Zones(release.place.zones, f"{release.place.namespace}-bare")  # nothing above it may answer about DMARC
    zones.records["unused"] = [("A", release.place.pool[5])]
    zones.write()
    bare = domain("bare", f"shop.{zones.zone}")
    try:
        release.kubectl.apply(bare)
        missing = ("False", "RecordMissing")
        object_says(release, "sendingdomain", "bare", DKIMPublished=missing, SPFAuthorized=missing, DMARCValid=missing)
        object_says(release, "sendingdomain", "bare", Verified=missing)
        status = (release.kubectl.get("sendingdomain", "bare") or {})["status"]
        assert {record["state"] for record in status["records"]} == {"Missing"}
        for record in status["records"]:  # what is to be published is published as it stands there
            zones.text(record["name"].removesuffix(f".{zones.zone}"), record["value"])
        zones.write()
        object_says(release, "sendingdomain", "bare", Verified=("True", "Verified"))
    finally:
        remove(release, bare)
        zones.remove()


def test_another_key_than_the_configured_one_is_published(release: Release) -> None:
    other = dkim_record.PublicKey("ed25519", bytes(32))
    release.zones.text(f"{SELECTOR}._domainkey.other", dkim_record.value(other))
    release.zones.write()
    made = domain("other", f"other.{release.place.zone}")
    release.kubectl.apply(made)
    object_says(release, "sendingdomain", "other", DKIMPublished=("False", "OtherKey"))
    remove(release, made)


def domain(name: str, full: str) -> Manifest:
    keys = [{"selector": SELECTOR, "secretRef": {"name": "dkim", "key": f"{SELECTOR}.pem"}}]
    return ours("SendingDomain", name, {"domain": full, "dkim": {"keys": keys}})


def test_submitter_without_its_secret(release: Release) -> None:
    password = {"name": "no-such-secret", "key": "hash"}
    spec = {"domains": [release.domain], "stream": "transactional", "passwordSecretRef": password}
    made = ours("Submitter", "nobody", spec)
    release.kubectl.apply(made)
    object_says(release, "submitter", "nobody", Accepted=("False", "SecretMissing"), Ready=("False", "SecretMissing"))
    remove(release, made)


def test_connection_that_would_leave_from_another_address(release: Release, inject: Callable[..., Injector]) -> None:
    ours_, another = release.place.pool[4], release.place.pool[5]
    with LyingProxy(release.place.server, another) as proxy:
        lying = release.ip_pool("lying", ours_)
        lying["spec"]["binding"] = {"mode": "socks5", "proxy": f"socks5://{release.place.server}:{proxy.port}"}
        password = {"name": "password", "key": "hash"}
        spec = {"domains": [release.domain], "stream": "lying", "passwordSecretRef": password}
        objects = [lying, release.sender_pool("lying", "lying", stream="lying"), ours("Submitter", "lying", spec)]
        release.kubectl.apply(*objects)
        object_says(release, "submitter", "lying", Ready=("True", "Ready"))
        release.settled()
        inject(count=1, username="lying")
        address_says(release, "lying", ours_, SourceVerified=("False", "OtherSource"), Plumbed=("True", "Verified"))
        address_says(release, "lying", ours_, Quarantined=("False", "NotQuarantined"))
        remove(release, *objects)


class LyingProxy:
    """A SOCKS5 proxy that says that it bound another address than it was asked to; it connects nobody.

    Args:
        address: where it listens.
        bound: what it says.
    """

    def __init__(self, address: str, bound: str) -> None:
        self._socket = socket.create_server((address, 0))
        self._answer = b"\5\0\0\1" + socket.inet_aton(bound) + b"\0\31"
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_why: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    if connection.recv(300):  # the methods; a look whether it answers says nothing
                        connection.sendall(b"\5\0")
                        connection.recv(300)
                        connection.sendall(self._answer)
                        connection.recv(1)
                except OSError:
                    continue
