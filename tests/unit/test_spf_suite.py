"""SPF evaluation against the test suite of RFC 7208 by the OpenSPF project (tests/golden/spf, release 2014.04)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.core.dns_answers import Asking, DnsStatus, Question, RecordAnswer
from postrail.core.spf import SpfOutcome, check_host

SUITE = Path(__file__).resolve().parents[1] / "golden" / "spf" / "rfc7208-tests.yml"
Zones = dict[str, list[Any]]


def cases() -> Iterator[Any]:
    for scenario in yaml.safe_load_all(SUITE.read_text(encoding="utf-8")):
        zones = {name.lower().rstrip("."): records for name, records in scenario["zonedata"].items()}
        for name, test in scenario["tests"].items():
            yield pytest.param(zones, test, id=f"{scenario['description']}-{name}".replace(" ", "-"))


def answer(zones: Zones, question: Question, links: int = 0) -> RecordAnswer:
    """The suite's rules: TIMEOUT fails every type that is not listed before it; SPF records stand for TXT where there is none."""
    records = zones.get(question.name.lower().rstrip("."))
    if records is None:
        return RecordAnswer(DnsStatus.NXDOMAIN)
    listed = [record for record in records if isinstance(record, dict)]
    kind = str(question.kind)
    if kind == "TXT" and not any("TXT" in record for record in listed):
        kind = "SPF"
    found = [record[kind] for record in listed if kind in record and record[kind] != "NONE"]
    if ("TIMEOUT" in records and not found) or "TIMEOUT" in found:
        return RecordAnswer(DnsStatus.FAILED, detail="time-out")
    if kind in ("TXT", "SPF"):
        found = ["".join(text) if isinstance(text, list) else text for text in found]
    if kind == "MX":
        found = [host for _, host in sorted(found)]
    values = tuple(str(value).lower().rstrip(".") if kind in ("MX", "PTR") else str(value) for value in found)
    cname = [record["CNAME"] for record in listed if "CNAME" in record]
    if cname and not values:
        if links > 8:
            return RecordAnswer(DnsStatus.FAILED, detail="CNAMEs do not end")
        return answer(zones, Question(question.kind, cname[0]), links + 1)
    return RecordAnswer(DnsStatus.FOUND if values else DnsStatus.NO_DATA, values)


def decide(zones: Zones, asking: Asking[SpfOutcome]) -> SpfOutcome:
    try:
        question = next(asking)
        while True:
            question = asking.send(answer(zones, question))
    except StopIteration as decided:
        outcome: SpfOutcome = decided.value
        return outcome


@pytest.mark.parametrize(("zones", "test"), list(cases()))
def test_result(zones: Zones, test: dict[str, Any]) -> None:
    sender = test["mailfrom"] or f"postmaster@{test['helo']}"
    domain = sender.rpartition("@")[2]
    outcome = decide(zones, check_host(ip_address(test["host"]), domain, sender, test["helo"]))
    allowed = test["result"] if isinstance(test["result"], list) else [test["result"]]
    assert outcome.result in allowed, f"{outcome}: {test.get('comment', '')}"
