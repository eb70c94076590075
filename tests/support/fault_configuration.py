"""The configuration of the fault tests: two submitters, three listeners, and delays that a test can wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from postrail.demo.system import SELECTORS
from postrail.demo.world import SENDER_DOMAIN

USER, PASSWORD = "shop", "correct horse battery staple"
SENDER = f"orders@{SENDER_DOMAIN}"
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
SUBMISSION, TRUSTED, STRANGERS = range(3)
"""Listeners: with AUTH, for 127.0.0.0/8, and for a network that nobody here is in."""


def configuration(folder: Path, ports: Sequence[int], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All sections.

    Args:
        ports: of the listeners, by the constants above.
        overrides: sections, merged field by field.
    """
    own = {"kind": "trusted", "address": "127.0.0.1", "submitter": "relay"}
    key = {"selector": SELECTORS["ed25519"], "key_file": str(folder / f"{SELECTORS['ed25519']}.pem")}
    values: dict[str, dict[str, Any]] = {
        "log": {"min_free_bytes": "1MiB"},
        "ingress": {
            "listeners": [
                {"kind": "submission", "address": "127.0.0.1", "port": ports[SUBMISSION]},
                {**own, "port": ports[TRUSTED], "networks": ["127.0.0.0/8"]},
                {**own, "port": ports[STRANGERS], "networks": ["192.0.2.0/24"]},
            ],
        },
        "streams": {"transactional": {"lane": "urgent"}, "brief": {"lane": "urgent", "lifetime_seconds": 2}},
        "signing": {"domains": {SENDER_DOMAIN: {"keys": [key]}}},
        "delivery": {
            "default_limits": {"messages_per_second": 10_000, "new_connections_per_minute": 60_000},
            "timeouts": {"connect_seconds": 2, "final_dot_seconds": 1, "idle_seconds": 0.5, "quit_seconds": 0.5},
            "retry": {
                "delays_seconds": [0.5],
                "tiers_seconds": [0.5, 1],
                "site_backoff_seconds": [0.5],
                "delay_warning_seconds": 3600,
            },
        },
        "routing": {"dns": _dns_settings()},
    }
    for section, fields in overrides.items():
        values[section] = {**values.get(section, {}), **fields}
    return {**values, "submitters": _submitters()}


def _dns_settings() -> dict[str, Any]:
    return {"timeout_seconds": 0.3, "tries": 2, "negative_ttl_seconds": 0.2}


def _submitters() -> list[dict[str, Any]]:
    return [
        {
            "name": USER,
            "password_hash": HASH,
            "domains": [SENDER_DOMAIN],
            "streams": ["brief"],
        },
        {
            "name": "relay",
            "password_hash": HASH,
            "domains": [SENDER_DOMAIN],
            "streams": ["brief"],
            "null_sender": True,
        },
    ]
