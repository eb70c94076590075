"""The books of the end-to-end tests notice what goes wrong: a loss, a second copy, another body, mail without a 250."""

from hashlib import sha256
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest

from postrail.demo.receivers import Received
from tests.support.cluster_books import Injected, ledger
from tests.support.cluster_place import NoPlace, read_place
from tests.support.cluster_receivers import Receivers

BODY = b"text\r\n"
SAID = Injected(
    offered={"m1-1": sha256(BODY).digest(), "m1-2": sha256(BODY).digest()}, accepted={"m1-1": ("a@inbox.test",)}
)


def books(*taken: tuple[str, str, bytes]) -> tuple[int, int, int, int]:
    """Lost, duplicates, altered, and repeats of what was never accepted, when receivers took this."""
    receivers = Receivers(SSLContext(PROTOCOL_TLS_SERVER))
    for ledger_id, recipient, body in taken:
        content = f"X-Ledger-Id: {ledger_id}\r\n\r\n".encode() + body
        receivers.took(Received("mx", "198.18.0.11", "out", True, "s@shop.test", (recipient,), (), content))
    found = ledger([SAID], receivers, "m1-").balance()
    return len(found.lost), found.duplicates, found.altered, found.unaccepted_repeats


def test_what_arrived_once_balances() -> None:
    assert books(("m1-1", "a@inbox.test", BODY)) == (0, 0, 0, 0)


def test_a_loss_and_a_second_copy_are_counted() -> None:
    assert books() == (1, 0, 0, 0)
    assert books(("m1-2", "b@inbox.test", BODY)) == (1, 0, 0, 0)
    assert books(*[("m1-1", "a@inbox.test", BODY)] * 3) == (0, 2, 0, 0)


def test_another_body_is_counted() -> None:
    assert books(("m1-1", "a@inbox.test", BODY + b"more\r\n")) == (0, 0, 1, 0)


def test_mail_without_a_250_may_arrive_once() -> None:
    once = [("m1-1", "a@inbox.test", BODY), ("m1-2", "b@inbox.test", BODY)]
    assert books(*once) == (0, 0, 0, 0)
    assert books(*once, once[1]) == (0, 0, 0, 1)


def test_other_runs_mail_is_not_in_the_books() -> None:
    assert books(("m1-1", "a@inbox.test", BODY), ("m2-1", "a@inbox.test", b"x"), ("m2-1", "a@inbox.test", b"x")) == (
        0,
        0,
        0,
        0,
    )


def test_a_place_without_a_cluster_says_what_to_do() -> None:
    with pytest.raises(NoPlace, match="make test-e2e"):
        read_place({})
    with pytest.raises(NoPlace, match="POSTRAIL_E2E_IMAGE"):
        read_place({"KUBECONFIG": "config"})
