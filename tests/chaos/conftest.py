"""Shows the figures of the ledger: each test hands its line to `figure`, and all are printed when the run ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_PROPERTY = "ledger"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a line for the output of the run."""
    return lambda line: record_property(_PROPERTY, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the lines, those of failed tests too."""
    lines = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section("ledger")
        for line in lines:
            terminalreporter.write_line(line)
