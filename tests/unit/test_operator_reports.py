"""What senders tell of their addresses: read from their metrics, and for how long it counts."""

import pytest
from prometheus_client import generate_latest

from postrail.sender import sources
from postrail.sender.egress import Problem
from postrail_operator import reports
from postrail_operator.client import Client
from postrail_operator.reports import REPORT_SECONDS, Report, Reporter, metrics_url, read_reports
from tests.support.kubernetes_objects import SETTINGS

METRICS = """\
# HELP postrail_sender_eligible_deliveries Deliveries that could be sent now.
# TYPE postrail_sender_eligible_deliveries gauge
postrail_sender_eligible_deliveries{group="gmail",pool="fast"} 3.0
# HELP postrail_sender_address_problems Whether an address has a problem.
# TYPE postrail_sender_address_problems gauge
postrail_sender_address_problems{address="192.0.2.1",pool="fast",problem="unbound"} 1.0
postrail_sender_address_problems{address="192.0.2.1",pool="fast",problem="proxy"} 0.0
postrail_sender_address_problems{address="192.0.2.1",pool="fast",problem="mismatch"} 0.0
postrail_sender_address_problems{address="2001:db8::1",pool="fast",problem="unbound"} 0.0
postrail_sender_address_problems{address="2001:db8::1",pool="fast",problem="mismatch"} 0.0
# HELP postrail_sender_address_verified Whether the last connection left from it.
# TYPE postrail_sender_address_verified gauge
postrail_sender_address_verified{address="192.0.2.1",pool="fast"} 0.0
postrail_sender_address_verified{address="2001:db8::1",pool="fast"} 1.0
"""


def test_reports_are_read_from_metrics() -> None:
    assert read_reports(METRICS, "pod", "node") == [
        Report("pod", "node", "fast", "192.0.2.1", frozenset({"unbound"})),
        Report("pod", "node", "fast", "2001:db8::1", verified=True),
    ]
    assert read_reports("", "pod", "node") == []


def test_what_the_sender_writes_is_what_the_operator_reads() -> None:
    sources.PROBLEMS.labels("fast", "192.0.2.7", Problem.MISMATCH).set(1)
    sources.VERIFIED.labels("fast", "192.0.2.7").set(1)
    told = [one for one in read_reports(generate_latest().decode(), "pod", "") if one.address == "192.0.2.7"]
    assert told == [Report("pod", "", "fast", "192.0.2.7", frozenset({reports.MISMATCH}), verified=True)]
    assert set(Problem) == {reports.UNBOUND, reports.PROXY, reports.MISMATCH}


def test_text_that_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_reports("postrail_sender_address_problems{address=", "pod", "node")


def test_running_pod_is_asked_at_its_health_port() -> None:
    container = {"ports": [{"name": "health", "containerPort": 21007}]}
    pod = {
        "metadata": {"name": "a"},
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "podIP": "10.0.0.7"},
    }
    assert metrics_url(pod) == "http://10.0.0.7:21007/metrics"
    assert metrics_url({**pod, "status": {"phase": "Running", "podIP": "fd00::7"}}) == "http://[fd00::7]:21007/metrics"
    assert metrics_url({**pod, "status": {"phase": "Pending"}}) is None
    assert metrics_url({**pod, "metadata": {"name": "a", "deletionTimestamp": "2026-11-22T12:00:00Z"}}) is None
    assert metrics_url({**pod, "spec": {"containers": [{}]}}) is None


def test_report_counts_for_a_while_and_only_news_are_told() -> None:
    now, pokes = [0.0], []
    reporter = Reporter(Client(), SETTINGS, lambda: pokes.append(now[0]), clock=lambda: now[0])
    assert reporter.reports() is None, "nobody was asked yet"
    report = Report("pod", "node", "fast", "192.0.2.1")
    reporter.take([report])
    assert reporter.reports() == [report]
    now[0] = 30.0
    reporter.take([report])
    reporter.take([])
    assert pokes == [0.0]
    now[0] = 30.0 + REPORT_SECONDS
    assert reporter.reports() == []
    reporter.take([Report("pod", "node", "fast", "192.0.2.1", frozenset({"mismatch"}))])
    assert pokes == [0.0, now[0]]
