"""What the senders tell of their source addresses and queues: asked at each sender's own metrics, without a Prometheus.

Owns the asking and how answers are read; `findings` decides what they mean. A report holds for REPORT_SECONDS, so that one answer
that fails to come, or a pod that is replaced, changes nothing. The names of the metrics are the sender's
(`postrail.sender.sources`). What waits in the queues is `backlogs`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from postrail_operator.backlogs import Backlogs, read_eligible
from postrail_operator.client import ApiError, Client, selector
from postrail_operator.settings import Settings

LOG = logging.getLogger("postrail.operator")
PROBLEMS = "postrail_sender_address_problems"
VERIFIED = "postrail_sender_address_verified"
UNBOUND, PROXY, MISMATCH = "unbound", "proxy", "mismatch"
"""Values of the label `problem`."""

INTERVAL_SECONDS = 15.0
REPORT_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0
AT_ONCE = 8
POOL_LABEL = "postrail.io/pool"
ENDED = frozenset({"Succeeded", "Failed"})
"""Phases of pods that hold no mail any more."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one sender tells of one address.

    Attributes:
        problems: of UNBOUND, PROXY, MISMATCH, those that it has now.
        verified: whether the last connection was seen to leave from it.
    """

    pod: str
    node: str
    pool: str
    address: str
    problems: frozenset[str] = frozenset()
    verified: bool = False


Told = tuple[list[Report], dict[str, int]]
"""A sender's reports, and by pool what could be sent now; both empty where it did not answer."""


def read_reports(text: str, pod: str, node: str) -> list[Report]:
    """The reports in a sender's metrics.

    Raises:
        ValueError: that is no text of metrics.
    """
    lines = [line for line in text.splitlines() if line.startswith((PROBLEMS, VERIFIED))]
    try:
        families = list(text_string_to_metric_families("\n".join(lines) + "\n"))
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"the metrics cannot be read: {error!r}") from error
    problems: dict[tuple[str, str], set[str]] = {}
    verified: set[tuple[str, str]] = set()
    for sample in (sample for family in families for sample in family.samples):
        key = (sample.labels.get("pool", ""), sample.labels.get("address", ""))
        if sample.name == VERIFIED:
            verified |= {key} if sample.value > 0 else set()
        else:
            problems.setdefault(key, set()).update({sample.labels.get("problem", "")} if sample.value > 0 else ())
    return [
        Report(pod, node, pool, address, frozenset(found), (pool, address) in verified)
        for (pool, address), found in sorted(problems.items())
    ]


def metrics_url(pod: Mapping[str, Any]) -> str | None:
    """Where a pod tells its metrics; None for one that does not run, or has no such port."""
    status = pod.get("status", {})
    if status.get("phase") != "Running" or not status.get("podIP") or pod["metadata"].get("deletionTimestamp"):
        return None
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    port = next((port["containerPort"] for port in ports if port.get("name") == "health"), None)
    address = status["podIP"]
    host = f"[{address}]" if ":" in address else address
    return None if port is None else f"http://{host}:{port}/metrics"


@dataclass(slots=True)
class Reporter:
    """Asks all senders every few seconds, as long as it is active.

    Args:
        poke: called when a report differs from the one before.
    """

    client: Client
    settings: Settings
    poke: Callable[[], None]
    active: bool = False
    clock: Callable[[], float] = time.monotonic
    backlogs: Backlogs = field(init=False)
    _asked: bool = False
    _reports: dict[tuple[str, str, str], tuple[float, Report]] = field(default_factory=dict)
    """By pod, pool and address."""

    def __post_init__(self) -> None:
        self.backlogs = Backlogs(self.clock)

    def reports(self) -> list[Report] | None:
        """What the senders told within the last REPORT_SECONDS; None where none was asked yet."""
        if not self._asked:
            return None
        now = self.clock()
        return [report for told_at, report in self._reports.values() if now - told_at < REPORT_SECONDS]

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                if self.active:
                    try:
                        await self.ask(session)
                    except ApiError as error:
                        LOG.warning("senders cannot be asked for their addresses: %s", error)
                    except Exception:  # what is known goes out of date; it is tried again
                        LOG.exception("senders cannot be asked for their addresses")
                await asyncio.sleep(INTERVAL_SECONDS)

    async def ask(self, session: aiohttp.ClientSession) -> None:
        """Ask every sender once. Raises ApiError."""
        labels = selector(
            {"app.kubernetes.io/instance": self.settings.release, "app.kubernetes.io/component": "sender"}
        )
        namespaces = sorted({self.settings.namespace, self.settings.senders_namespace})
        listed = [await self.client.list_all("v1", "Pod", namespace, labels) for namespace in namespaces]
        gate = asyncio.Semaphore(AT_ONCE)
        senders = [pod for pods in listed for pod in pods if pod.get("status", {}).get("phase") not in ENDED]
        found = await asyncio.gather(*(self._ask_one(session, gate, pod) for pod in senders))
        self.take(report for reports, _ in found for report in reports)
        pools = [pod["metadata"].get("labels", {}).get(POOL_LABEL, "") for pod in senders]
        self.backlogs.take((pool, eligible.get(pool)) for pool, (_, eligible) in zip(pools, found, strict=True))

    def take(self, reports: Iterable[Report]) -> None:
        """Remember what senders told now."""
        now = self.clock()
        changed, self._asked = not self._asked, True
        for report in reports:
            key = (report.pod, report.pool, report.address)
            changed |= key not in self._reports or self._reports[key][1] != report
            self._reports[key] = (now, report)
        self._reports = {key: one for key, one in self._reports.items() if now - one[0] < REPORT_SECONDS}
        if changed:
            self.poke()

    @staticmethod
    async def _ask_one(session: aiohttp.ClientSession, gate: asyncio.Semaphore, pod: Mapping[str, Any]) -> Told:
        url = metrics_url(pod)
        if url is None:
            return [], {}
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        try:
            async with gate, session.get(url) as answer:
                text = await answer.text()
                return read_reports(text, name, node), read_eligible(text)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            LOG.info("the sender %s does not tell of its addresses: %s", name, str(error) or type(error).__name__)
            return [], {}
