"""Values that are made many times for each message: read-only to the type checker, and quick to make.

A frozen dataclass sets each field through `object.__setattr__`, which makes an `Event` of 26 fields cost 5 µs instead of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots and a hash. That nobody sets a field is checked by mypy, not when it runs."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
