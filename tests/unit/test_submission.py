"""Who may send as whom, and how guessing and haste are slowed."""

import pytest

from postrail.core.dkim_domains import signing_domain_for
from postrail.core.ingress_config import SubmitterConfig
from postrail.core.refusals import Refused
from postrail.core.submission import (
    FORGET_FAILURES_SECONDS,
    AuthThrottle,
    Submitter,
    TokenBucket,
    check_author,
    client_key,
    reverse_path,
    stream_of,
)


def submitter(*domains: str, null_sender: bool = False) -> Submitter:
    return Submitter.of(SubmitterConfig(name="shop", domains=domains, streams=("marketing",), null_sender=null_sender))


@pytest.mark.parametrize(
    ("domains", "owned", "foreign"),
    [
        (("example.com",), ["example.com"], ["sub.example.com", "notexample.com", "example.org"]),
        ((".example.com",), ["sub.example.com", "a.b.example.com"], ["example.com", "notexample.com"]),
        (("*",), ["anything.example"], []),
        (("exämple.com",), ["xn--exmple-cua.com"], ["exmple.com"]),
        ((), [], ["example.com"]),
    ],
)
def test_domains(domains: tuple[str, ...], owned: list[str], foreign: list[str]) -> None:
    who = submitter(*domains)
    assert [who.owns(domain) for domain in owned + foreign] == [True] * len(owned) + [False] * len(foreign)


def test_the_null_reverse_path_needs_permission() -> None:
    assert reverse_path("", submitter("*", null_sender=True), smtputf8=False) == ""
    with pytest.raises(Refused, match="null reverse path"):
        reverse_path("", submitter("*"), smtputf8=False)


def test_one_foreign_author_is_enough_to_refuse() -> None:
    check_author(["example.com"], submitter("example.com"))
    with pytest.raises(Refused, match=r"From field of example\.org"):
        check_author(["example.com", "example.org"], submitter("example.com"))


def test_streams() -> None:
    who = submitter("*")
    assert [stream_of(asked, who) for asked in ("", "transactional", "marketing")] == ["transactional"] * 2 + [
        "marketing"
    ]
    with pytest.raises(Refused, match="stream"):
        stream_of("other", who)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
    ],
)
def test_what_counts_as_one_client(address: str, key: str) -> None:
    assert client_key(address) == key


def test_failures_cost_twice_as_long_each_time_and_only_their_own_address() -> None:
    throttle = AuthThrottle(max_failures=3, delay_seconds=1.0)
    delays = []
    for _ in range(8):
        throttle.begin("a", 0.0)
        delays.append(throttle.end("a", 0.0, failed=True))
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert throttle.is_blocked("a", 0.0)
    assert throttle.has_failed_too_often("a")
    assert not throttle.is_blocked("b", 0.0)
    assert not throttle.is_blocked("a", sum(delays))


def test_parallel_guesses_of_one_address_are_bounded() -> None:
    throttle = AuthThrottle(max_failures=3, delay_seconds=1.0, max_pending=4)
    for _ in range(4):
        assert not throttle.is_blocked("a", 0.0)
        throttle.begin("a", 0.0)
    assert throttle.is_blocked("a", 0.0)
    assert throttle.end("a", 0.0, failed=False) == 0.0
    assert not throttle.is_blocked("a", 0.0)


def test_failures_are_forgotten_and_the_table_is_bounded() -> None:
    throttle = AuthThrottle(max_failures=1, delay_seconds=1.0, max_clients=10)
    for number in range(1000):
        throttle.begin(str(number), float(number))
        throttle.end(str(number), float(number), failed=True)
    assert len(throttle._clients) <= 10
    later = 1000 + FORGET_FAILURES_SECONDS
    throttle.begin("999", later)
    assert throttle.end("999", later, failed=True) == 1.0


def test_tokens_come_back_with_time() -> None:
    bucket = TokenBucket(2.0, 2.0, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(30.0), bucket.take(30.0)] == [True, False]


def test_the_nearest_signing_domain_signs() -> None:
    domains = {"example.com", "eu.example.com"}
    names = ["example.com", "a.example.com", "eu.example.com", "x.eu.example.com", "example.org", "com", ""]
    assert [signing_domain_for(name, domains) for name in names] == [
        "example.com", "example.com", "eu.example.com", "eu.example.com", None, None, None,
    ]  # fmt: skip
