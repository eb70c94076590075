"""What the end-to-end tests share: a place on a cluster, receivers and DNS outside it, and one release of the chart.

The release is installed once and all tests use it. A failed test shows the pods and their logs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from postrail.demo.credentials import server_context, write_certificate
from tests.support.cluster_books import Injector, injector_pod
from tests.support.cluster_place import NoPlace, Place, read_place
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import INGRESS, USER, Release
from tests.support.cluster_zones import Zones
from tests.support.kubectl import Kubectl
from tests.support.s3 import s3_server

HERE = Path(__file__).parent
SECONDS_A_TEST = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pods take their time."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS_A_TEST))


@pytest.fixture(scope="session")
def place() -> Place:
    """The cluster; skips everything where there is none."""
    try:
        return read_place()
    except NoPlace as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def folder(place: Place) -> Iterator[Path]:
    """For files of this run."""
    made = Path(tempfile.mkdtemp(prefix=f"{place.namespace}-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def zones(place: Place) -> Iterator[Zones]:
    """The DNS of this run: receivers are at `inbox1` and so on, one for each address."""
    made = Zones(place.zones, place.zone)
    for number, address in enumerate(place.receivers, 1):
        made.receiver(f"inbox{number}", address)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def receivers(place: Place, zones: Zones, folder: Path) -> Iterator[Receivers]:
    """Receivers on all their addresses, with STARTTLS."""
    names = [f"mx1.inbox{number}.{zones.zone}" for number in range(1, len(place.receivers) + 1)]
    with Receivers(server_context(*write_certificate(folder, *names))) as made:
        for address in place.receivers:
            made.listen(address)
        yield made


@pytest.fixture(scope="session")
def storage(place: Place, folder: Path) -> Iterator[str]:
    """The endpoint of an S3 server that pods reach."""
    with s3_server(folder / "s3", place.server, place.server_port) as running:
        yield running.endpoint


@pytest.fixture(scope="session")
def release(place: Place, zones: Zones, receivers: Receivers, storage: str, folder: Path) -> Iterator[Release]:
    """The release, with one IPPool, SenderPool, SendingDomain and Submitter, ready."""
    made = Release(place, zones, storage)
    try:
        made.prepare()
        secrets = made.publish(folder)
        made.install(folder)
        made.kubectl.apply(*secrets, *made.objects())
        made.ready()
        yield made
    except BaseException:
        print(Kubectl(place.namespace).describe_trouble(), Kubectl(place.senders_namespace).describe_trouble())
        raise
    finally:
        if not place.keep:
            made.remove()


@pytest.fixture
def inject(release: Release) -> Iterator[Callable[..., Injector]]:
    """Starts an injector's pod: `inject(count=100, per_second=20, …)`."""
    started: list[Injector] = []

    def start(**changes: object) -> Injector:
        prefix = f"m{uuid4().hex[:8]}"
        settings: dict[str, object] = {
            "host": f"{INGRESS}.{release.place.namespace}.svc",
            "port": 587,
            "kind": "submission",
            "username": USER,
            "password": release.password,
            "sender": f"orders@{release.domain}",
            "recipients": [
                f"inbox{number}.{release.place.zone}" for number in range(1, len(release.place.receivers) + 1)
            ],
            "prefix": prefix,
            "count": 10,
            "per_second": 50,
            "sessions": 2,
            "most_recipients": 1,
            "sizes_bytes": [500, 4000],
            **changes,
        }
        made = Injector(release.kubectl, f"injector-{prefix}", prefix)
        release.kubectl.apply(*injector_pod(made.name, release.place.image, settings))
        started.append(made)
        return made

    yield start
    for injector in started:
        injector.delete()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the cluster says when a test failed."""
    report = yield
    funcargs = getattr(item, "funcargs", {})
    if call.when == "call" and call.excinfo is not None and "release" in funcargs:
        release: Release = funcargs["release"]
        for kubectl in (release.kubectl, release.senders):
            report.sections.append((f"cluster: {kubectl.namespace}", kubectl.describe_trouble()))
    return report
