"""The client's side of SOCKS5: what is said, what each answer means, and that no byte of the target's is asked for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.socks5 import ABOUT_THE_TARGET, REPLIES, Bound, Credentials, Handshake, ProxyError, TargetRefused

NO_AUTHENTICATION = b"\x05\x00"
PASSWORD = b"\x05\x02"
LOGIN = Credentials("sender", "sesame")
ANSWER_V4 = b"\x05\x00\x00\x01\xc0\x00\x02\x01\x12\x34"
ANSWER_V6 = b"\x05\x00\x00\x04" + ip_address("2001:db8::1").packed + b"\x00\x19"


def feed(handshake: Handshake, data: bytes) -> bytes:
    """Give bytes as a socket would that is asked for no more than is wanted; returns all that was written."""
    written = handshake.take_output()
    while data and handshake.wanted_bytes:
        piece, data = data[: handshake.wanted_bytes], data[handshake.wanted_bytes :]
        handshake.receive(piece)
        written += handshake.take_output()
    assert not data, "more was given than the dialogue wants"
    return written


def test_connect_without_authentication() -> None:
    handshake = Handshake("192.0.2.25", 25)
    assert feed(handshake, b"") == b"\x05\x01\x00"
    before = handshake.asked
    assert feed(handshake, NO_AUTHENTICATION) == b"\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"
    assert (before, handshake.asked) == (False, True)
    assert feed(handshake, ANSWER_V4) == b""
    assert handshake.bound == Bound(ip_address("192.0.2.1"), 0x1234)
    assert handshake.wanted_bytes == 0


def test_connect_over_ipv6() -> None:
    handshake = Handshake("2001:db8::19", 25)
    assert feed(handshake, NO_AUTHENTICATION + ANSWER_V6)[3:] == (
        b"\x05\x01\x00\x04" + ip_address("2001:db8::19").packed + b"\x00\x19"
    )
    assert handshake.bound == Bound(ip_address("2001:db8::1"), 25)


def test_a_mapped_address_is_the_ipv4_address() -> None:
    handshake = Handshake("192.0.2.25", 25)
    mapped = b"\x05\x00\x00\x04" + ip_address("::ffff:192.0.2.1").packed + b"\x00\x19"
    feed(handshake, NO_AUTHENTICATION + mapped)
    assert handshake.bound is not None
    assert handshake.bound.address == ip_address("192.0.2.1")


def test_a_name_is_no_address() -> None:
    handshake = Handshake("192.0.2.25", 25)
    feed(handshake, NO_AUTHENTICATION + b"\x05\x00\x00\x03\x0bproxy.local\x00\x19")
    assert handshake.bound == Bound(None, 25, "proxy.local")
    assert str(handshake.bound) == "'proxy.local'"


def test_password_where_the_proxy_wants_it() -> None:
    handshake = Handshake("192.0.2.25", 25, LOGIN)
    assert feed(handshake, PASSWORD) == b"\x05\x02\x00\x02" + b"\x01\x06sender\x06sesame"
    assert not handshake.asked
    assert feed(handshake, b"\x01\x00").startswith(b"\x05\x01\x00\x01")
    feed(handshake, ANSWER_V4)
    assert handshake.bound is not None


def test_password_is_not_said_where_the_proxy_wants_none() -> None:
    written = feed(Handshake("192.0.2.25", 25, LOGIN), NO_AUTHENTICATION)
    assert b"sesame" not in written


def test_password_stays_out_of_tracebacks() -> None:
    assert "sesame" not in repr(LOGIN)


@pytest.mark.parametrize(
    ("credentials", "data", "reason"),
    [
        (None, b"\x04\x5a", "does not speak SOCKS5: the first byte is 0x04"),
        (None, b"HT", "does not speak SOCKS5: the first byte is 0x48"),
        (None, b"\x05\xff", "does not accept no authentication"),
        (LOGIN, b"\x05\xff", "does not accept a user name and password"),
        (None, PASSWORD, "method 0x02, which was not offered"),
        (None, b"\x05\x01", "method 0x01, which was not offered"),
        (LOGIN, PASSWORD + b"\x01\x01", "refuses the user name and password"),
        (None, NO_AUTHENTICATION + b"\x04\x00\x00\x01\x7f", "its answer has the version 0x04"),
        (None, NO_AUTHENTICATION + b"\x05\x07\x00\x01\x00", "command not supported"),
        (None, NO_AUTHENTICATION + b"\x05\x2a\x00\x01\x00", "unknown code 0x2a"),
        (None, NO_AUTHENTICATION + b"\x05\x00\x00\x02\x00", "unknown address type 0x02"),
    ],
)
def test_what_the_proxy_is_to_blame_for(credentials: Credentials | None, data: bytes, reason: str) -> None:
    with pytest.raises(ProxyError, match=reason):
        feed(Handshake("192.0.2.25", 25, credentials), data)


@pytest.mark.parametrize("code", sorted(ABOUT_THE_TARGET))
def test_what_is_the_targets_fault(code: int) -> None:
    with pytest.raises(TargetRefused, match=REPLIES[code]):
        feed(Handshake("192.0.2.25", 25), NO_AUTHENTICATION + bytes((5, code, 0, 1, 0)))


@pytest.mark.parametrize("cut", range(len(NO_AUTHENTICATION + ANSWER_V4)))
def test_a_truncated_dialogue_is_the_proxys_fault(cut: int) -> None:
    handshake = Handshake("192.0.2.25", 25)
    feed(handshake, (NO_AUTHENTICATION + ANSWER_V4)[:cut])
    assert handshake.bound is None
    assert handshake.wanted_bytes > 0
    with pytest.raises(ProxyError, match="closed the connection"):
        handshake.receive(b"")


def test_bytes_of_the_target_are_not_taken() -> None:
    handshake = Handshake("192.0.2.25", 25)
    handshake.take_output()
    with pytest.raises(ValueError, match="only 2 are wanted"):
        handshake.receive(NO_AUTHENTICATION + ANSWER_V4)


@given(data=st.binary(max_size=600), login=st.booleans())
def test_garbage_ends_in_an_answer_or_an_error(data: bytes, login: bool) -> None:
    handshake = Handshake("192.0.2.25", 25, LOGIN if login else None)
    try:
        while data and handshake.wanted_bytes:
            piece, data = data[: handshake.wanted_bytes], data[handshake.wanted_bytes :]
            handshake.receive(piece)
    except (ProxyError, TargetRefused):
        assert handshake.bound is None
    else:
        assert (handshake.bound is None) == bool(handshake.wanted_bytes)
