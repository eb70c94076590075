"""Postrail on the embedded log with two workers: a trusted listener, one RSA-2048 key, a smarthost for each domain."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from bench.dkim_key import SELECTOR, SENDER_DOMAIN
from bench.load import RECIPIENT_DOMAIN, BenchmarkError
from bench.systems.base import System

DOWN_DOMAIN = "down.test"
WORKERS = 2
_UNLIMITED = 1_000_000


def program() -> Path:
    """Return the postrail command: POSTRAIL_PROGRAM, or the one beside the running interpreter."""
    return Path(os.environ.get("POSTRAIL_PROGRAM") or Path(sys.executable).parent / "postrail")


class Postrail(System):
    """The system that this repository builds."""

    name: ClassVar[str] = "postrail"
    label: ClassVar[str] = "Postrail"

    @staticmethod
    def version() -> str:
        """Return the version, the commit and Python's version."""
        if not program().exists():
            raise BenchmarkError(f"{program()} is missing; run: make setup")
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        commit = done.stdout.strip() or "no commit"
        python = sys.version.split()[0]
        return f"Postrail {metadata.version('postrail')} ({commit}, {WORKERS} workers, Python {python})"

    def launch(self) -> None:
        """Write the configuration and start the workers. A second launch finds the first one's queue."""
        file = self.setup.directory / "postrail.yaml"
        file.write_text(json.dumps(self.configuration(), indent=2))  # JSON is YAML
        self.spawn("postrail", [str(program()), "up", "--config", str(file), "--workers", str(WORKERS)])

    def configuration(self) -> dict[str, object]:
        """What the file says."""
        setup = self.setup
        return {
            "hostname": "postrail.test",
            "data_directory": str(setup.directory / "data"),
            "ingress": {
                "listeners": [
                    {
                        "kind": "trusted",
                        "address": "127.0.0.1",
                        "port": self.port,
                        "networks": ["127.0.0.0/8"],
                        "submitter": "bench",
                    }
                ]
            },
            "submitters": [{"name": "bench", "domains": [SENDER_DOMAIN], "stream": "transactional"}],
            "pools": {"default": {"sources": [{"address": "127.0.0.1", "ehlo": "postrail.test"}]}},
            "signing": {
                "domains": {
                    SENDER_DOMAIN: {"keys": [{"selector": SELECTOR, "key_file": str(setup.key.private_key_file)}]}
                }
            },
            "routing": {
                "allow_loopback": True,
                "smarthosts": {
                    RECIPIENT_DOMAIN: {"host": "127.0.0.1", "port": setup.sink_port},
                    DOWN_DOMAIN: {"host": "127.0.0.1", "port": setup.down_port},
                },
            },
            "delivery": {
                "tls": "none",
                "default_limits": {
                    "connections": 50,
                    "messages_per_connection": _UNLIMITED,
                    "messages_per_second": _UNLIMITED,
                    "new_connections_per_minute": _UNLIMITED,
                },
            },
            "health": {"port": 0},
        }
