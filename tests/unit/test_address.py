"""The syntax of addresses, and which of them ask for relaying."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.address import (
    BadAddress,
    NeedsSmtpUtf8,
    RelayAttempt,
    ascii_domain,
    check_address,
    check_recipient,
    domain_of,
    split_path,
)


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("a@example.com", "example.com"),
        ("a.b+c=d_e-f@Sub.Example.COM", "sub.example.com"),
        ("o'neil@example.com", "example.com"),
        ('"a b"@example.com', "example.com"),
        ('"a\\"b"@example.com', "example.com"),
        ("postmaster@localhost", "localhost"),
        ("a@xn--exmple-cua.com", "xn--exmple-cua.com"),
        ("ä@exämple.com", "xn--exmple-cua.com"),
        ("a@1and1.example", "1and1.example"),
    ],
)
def test_well_formed(address: str, domain: str) -> None:
    assert check_address(address, smtputf8=True) == domain


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "@", "a@", "a@.com", "a@example..com", "a@example.com.", "a@-x.com", "a@x-.com", "a@exa_mple.com",
        ".a@example.com", "a.@example.com", "a..b@example.com", "a b@example.com", '"a@example.com', "a@[127.0.0.1]",
        "a" * 65 + "@example.com", "a@" + "b" * 64 + ".com", "a@" + "b." * 130 + "com", "a\r\nb@example.com",
        "a@exam\tple.com", "a\0@example.com", "a@example.com\n", "\ud800@example.com",
    ],
)  # fmt: skip
def test_malformed(address: str) -> None:
    with pytest.raises(BadAddress):
        check_address(address, smtputf8=True)


@pytest.mark.parametrize(
    "address",
    [
        "c%d@example.org",
        "d!c@example.org",
        "@x:c@example.org",
        '"c@x"@example.org',
        "c@x@example.org",
        '"c%d"@example.org',
    ],
)
def test_relay_attempts(address: str) -> None:
    with pytest.raises(RelayAttempt):
        check_recipient(address, smtputf8=False)


@pytest.mark.parametrize("address", ["ä@example.com", "a@exämple.com"])
def test_more_than_ascii_needs_smtputf8(address: str) -> None:
    with pytest.raises(NeedsSmtpUtf8):
        check_address(address, smtputf8=False)


@pytest.mark.parametrize(
    ("text", "path", "parameters"),
    [
        ("<a@b>", "a@b", ""),
        (" <a@b> SIZE=1  BODY=7BIT", "a@b", "SIZE=1  BODY=7BIT"),
        ("<>", "", ""),
        ('<"a>b"@c> X', '"a>b"@c', "X"),
    ],
)
def test_paths_are_split_from_their_parameters(text: str, path: str, parameters: str) -> None:
    assert split_path(text) == (path, parameters)


@pytest.mark.parametrize("text", ["a@b", "<a@b", "<a@b>SIZE=1", "", "<<a@b>>", "x <a@b>"])
def test_no_path(text: str) -> None:
    with pytest.raises(BadAddress):
        split_path(text)


@given(st.text(max_size=80))
def test_whatever_passes_has_a_host_name_and_no_line_break(text: str) -> None:
    try:
        domain = check_recipient(text, smtputf8=True)
    except BadAddress:
        return
    assert domain.isascii()
    assert domain == ascii_domain(domain_of(text))
    assert not set(text) & set("\r\n\0")
