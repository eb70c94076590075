"""What the end-to-end tests share for the whole run: the peers, and one Postrail among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.mail_world import MAILBOXES, SENDER_DOMAIN, MailWorld, mail_world
from tests.support.postrail_process import PostrailProcess
from tests.support.processes import tail

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember whether a test failed, so that its fixtures can show logs."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed  # type: ignore[attr-defined]
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests about the embedded log itself don't run on Kafka."""
    others = [item for item in items if item.get_closest_marker("embedded") and _log_of(item) == "kafka"]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _log_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("world", ""))


@pytest.fixture(scope="session", params=["embedded", "kafka"])
def world(request: pytest.FixtureRequest) -> Iterator[MailWorld]:
    """The running peers, first around a Postrail on the embedded log, then around one whose services share Kafka."""
    broker = request.getfixturevalue("kafka_broker") if request.param == "kafka" else None
    with mail_world(broker.bootstrap if broker is not None else None) as running:
        yield running


@pytest.fixture(scope="session")
def _shared_postrail(world: MailWorld) -> Iterator[PostrailProcess]:
    with world.postrail() as process:
        process.start()
        yield process
        process.stop()


@pytest.fixture
def postrail(request: pytest.FixtureRequest, _shared_postrail: PostrailProcess) -> Iterator[PostrailProcess]:
    """The Postrail that tests share which do not stop it; its log is shown when a test fails."""
    yield _shared_postrail
    if request.node.stash.get(_FAILED, False):
        print(f"--- the end of Postrail's log\n{tail(_shared_postrail.log)}")


@pytest.fixture
def own_postrail(request: pytest.FixtureRequest, world: MailWorld) -> Iterator[PostrailProcess]:
    """A Postrail for this test alone, not started yet."""
    with world.postrail() as process:
        yield process
        if request.node.stash.get(_FAILED, False):
            print(f"--- the end of Postrail's log\n{tail(process.log)}")


_unused = iter(MAILBOXES)


@pytest.fixture
def new_sender() -> Callable[[], str]:
    """Gives addresses of the sender's domain, each with an empty mailbox in Dovecot."""
    return lambda: f"{next(_unused)}@{SENDER_DOMAIN}"
