"""What a person sees: progress while it runs, and the summary at the end.

Owns the wording and the tables. On a terminal the progress is one table that changes; elsewhere plain lines.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from postrail.demo.scenario import Outcome, Scenario
from postrail.demo.world import PLACES

LINE_EVERY_SECONDS = 2.0


class Progress:
    """Shows how the run goes. A context manager; `update` is the scenario's `on_progress`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, scenario: Scenario) -> None:
        """Show the present state, not more often than useful."""
        if self._live is not None:
            self._live.update(_state(scenario))
        elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(_line(scenario), highlight=False)


def _line(scenario: Scenario) -> str:
    received = sum(count.received for count in scenario.counts.values())
    elapsed = scenario.world.elapsed() if scenario.world else 0.0
    return (
        f"{elapsed:5.1f} s  {scenario.phase}: accepted {scenario.ledger.accepted_count} of {scenario.messages}, "
        f"delivered {received}, bounced {len(scenario.ledger.bounces)}, under way {scenario.ledger.open_count}"
    )


def _state(scenario: Scenario) -> Group:
    table = Table("destination", "received", "refused for now", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for place in PLACES:
        refused = scenario.world.refusals(place.domain) if scenario.world else Counter[str]()
        later = sum(count for code, count in refused.items() if code.startswith("4"))
        count = scenario.counts.get(place.domain)
        table.add_row(
            f"{place.domain}  [dim]{place.about}[/dim]", str(count.received if count else 0), str(later or "")
        )
    return Group(Text(_line(scenario)), table)


def show(outcome: Outcome, console: Console, folder: Path | None) -> None:
    """Print the summary.

    Args:
        folder: where everything was kept; None when it was removed.
    """
    console.print(_places(outcome))
    console.print()
    for line in [*_story(outcome), "", *_books(outcome), "", *_next_steps(outcome, folder)]:
        console.print(line, highlight=False, soft_wrap=True)


def _places(outcome: Outcome) -> Table:
    table = Table(
        "destination",
        "what it is like",
        "delivered",
        "over TLS",
        "said later",
        "bounced",
        title="Where the mail went",
        title_justify="left",
    )
    for column in table.columns[2:]:
        column.justify = "right"
    bounced = Counter(bounce.entry.recipient.partition("@")[2] for bounce in outcome.bounces)
    for place in PLACES:
        count = outcome.counts[place.domain]
        later = Counter({code: times for code, times in outcome.refusals[place.domain].items() if code.startswith("4")})
        said = ", ".join(f"{code} × {times}" for code, times in sorted(later.items()))
        if place.opens_after and not said:
            said = "connection refused" if not place.dns else "SERVFAIL"
        encrypted = f"{100 * count.encrypted // count.received} %" if count.received else ""
        table.add_row(
            place.domain,
            place.about,
            str(count.received or ""),
            encrypted,
            said,
            str(bounced[place.domain] or ""),
        )
    return table


def _story(outcome: Outcome) -> list[str]:
    balance = outcome.balance
    received = sum(count.received for count in outcome.counts.values())
    signed = sum(count.signed for count in outcome.counts.values())
    sources: Counter[str] = sum((count.sources for count in outcome.counts.values()), Counter())
    used = ", ".join(f"{address} ({count})" for address, count in sorted(sources.items()))
    rate = balance.accepted / outcome.submission_seconds if outcome.submission_seconds else 0.0
    took = (
        f"Accepted {balance.accepted} messages in {outcome.submission_seconds:.1f} s ({rate:.0f} a second), each durable "
        f"before its 250; all settled after {outcome.seconds:.1f} s."
    )
    signatures = (
        f"DKIM: {signed} of {received} delivered messages are signed; an independent verifier accepts "
        f"{outcome.signatures_valid} of {outcome.signatures_checked} samples."
    )
    lines = [took, f"Source addresses used: {used}.", signatures]
    if outcome.bounces:
        lines.append(f"Bounces: {outcome.notifications} notifications reached the sender. For example:")
        examples = {bounce.entry.recipient.partition("@")[2]: bounce for bounce in outcome.bounces}
        lines += [f"  {bounce.entry.recipient}: {bounce.diagnostic}" for bounce in list(examples.values())[:4]]
    if outcome.traced:
        lines += ["", "The story of one message that a receiver greylisted (postrail trace):"]
        lines += [f"  {line}" for line in outcome.traced.splitlines()]
    return lines


def _books(outcome: Outcome) -> list[str]:
    balance = outcome.balance
    verdict = "[bold green]The books are even.[/]" if outcome.is_good else "[bold red]The books are not even.[/]"
    equation = (
        f"{verdict} accepted {balance.accepted} = delivered {balance.delivered} + bounced {balance.bounced} "
        f"+ still queued {balance.queued} + lost {len(balance.lost)}; duplicates {balance.duplicates}, "
        f"bodies altered {balance.altered}."
    )
    lines = [equation]
    lines += [f"  lost: {entry.ledger_id} to {entry.recipient}" for entry in balance.lost[:10]]
    lines += [f"  refused at submission: {reply}" for reply in outcome.refused[:5]]
    if outcome.unanswered:
        lines.append(f"  submissions without an answer to the final dot: {outcome.unanswered}")
    if outcome.exit_status:
        lines.append(f"  `postrail up` ended with status {outcome.exit_status}")
    return lines


def _next_steps(outcome: Outcome, folder: Path | None) -> list[str]:
    if folder is None:
        return [
            "To look around afterwards, keep the folder: postrail demo --keep DIR",
            "To run it for your own domain: postrail init FILE; then read docs/ of the source.",
        ]
    config = folder / "postrail.yaml"
    example = next(iter(outcome.message_ids), "ID")
    return [
        f"Kept in {folder}. Look around:",
        f"  postrail trace {example} --config {config}",
        f"  postrail queue --config {config}",
        f"  less {folder / 'postrail.log'}",
    ]
