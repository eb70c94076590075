"""Durations and sizes as people write them in the configuration: `5m`, `4h`, `25MiB`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_seconds(text: object) -> object:
    """`"5m"` → 300.0. Numbers and anything else pass through for pydantic to judge.

    Raises:
        ValueError: a string that is no duration.
    """
    if not isinstance(text, str):
        return text
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _SECONDS:
        raise ValueError(f"{text!r} is not a duration; write a number and one of ms, s, m, h, d, such as 5m")
    return float(match[1]) * _SECONDS[match[2].lower()]


def parse_bytes(text: object) -> object:
    """`"25MiB"` → 26214400. Numbers and anything else pass through for pydantic to judge.

    Raises:
        ValueError: a string that is no size.
    """
    if not isinstance(text, str):
        return text
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError(
            f"{text!r} is not a size; write a number and one of B, KB, MB, GB, KiB, MiB, GiB, such as 25MiB"
        )
    return int(float(match[1]) * _BYTES[match[2].lower()])


Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
