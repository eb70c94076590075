"""A Prometheus beside the cluster that reads the senders' metrics, found by the cluster's DNS.

Owns that process and its configuration. It runs outside the pods, on an address that pods reach, so the operator and KEDA ask it
as they would ask any other. Neighbour: `cluster_pools`, whose Service names the senders.
"""

from __future__ import annotations

import contextlib
import json
import math
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from tests.support.processes import Daemon, daemon_folder, free_port
from tests.support.tools import require_tool

SCRAPE_SECONDS = 3
HEALTH_PORT = 9464


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs; `url` is where pods reach it."""

    url: str

    def is_ready(self) -> bool:
        """Whether it answers questions, which is some time after it listens."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, expression: str) -> float | None:
        """The value of an expression that has one; None where it has none."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            body = json.loads(answer.read())
        assert body["status"] == "success", body
        found = body["data"]["result"]
        assert len(found) < 2, f"{expression} has several values: {found}"
        value = float(found[0]["value"][1]) if found else math.nan
        return None if math.isnan(value) else value


@contextlib.contextmanager
def prometheus(address: str, *services: str) -> Iterator[Prometheus]:
    """Run one that reads the pods of these headless Services (names as in the DNS).

    Args:
        address: of this machine; pods reach it.
    """
    program = require_tool("prometheus", "it tells the operator and KEDA how much mail waits")
    port = free_port()
    found = {"names": list(services), "type": "A", "port": HEALTH_PORT, "refresh_interval": f"{SCRAPE_SECONDS}s"}
    settings = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
        "scrape_configs": [{"job_name": "postrail", "dns_sd_configs": [found]}],
    }
    with daemon_folder("prometheus") as folder:
        file = folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
        daemon = Daemon([program, *options, f"--web.listen-address={address}:{port}"], folder / "log")
        try:
            made = Prometheus(f"http://{address}:{port}")
            daemon.wait_until("answers questions", made.is_ready, 60)
            yield made
        finally:
            daemon.stop()
