"""The choice of OpenSSL's RSA routine: only where it was measured to be faster, and never against a choice already made."""

from __future__ import annotations

import pytest

from postrail.shell.openssl_cpu import VARIABLE, WITHOUT_ADX, setting

MILAN = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 bmi2 adx sha_ni\n"


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        (MILAN, WITHOUT_ADX),
        (MILAN.replace("avx2", "avx2 avx512ifma"), None),
        (MILAN.replace(" adx", ""), None),
        (MILAN.replace("AuthenticAMD", "GenuineIntel"), None),
        ("", None),
    ],
)
def test_the_routine_follows_the_processor(cpu_info: str, expected: str | None) -> None:
    assert setting({}, cpu_info) == expected


def test_a_choice_already_made_stands() -> None:
    assert setting({VARIABLE: ""}, MILAN) is None
