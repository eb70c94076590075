"""Generates the tables of docs/topics.md from `postrail.core.topic_specs`: the topics, and their settings on Kafka.

`python tools/topics_reference.py` writes what stands between the page's markers and leaves the prose around them alone; `--check`
fails when it is not current.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from postrail.core.config import Config
from postrail.core.topic_specs import FAMILIES, WHY, TopicKind, specs

TARGET = Path(__file__).resolve().parent.parent / "docs" / "topics.md"
BEGIN, END = "<!-- begin: {} (make docs) -->\n", "<!-- end: {} -->\n"
KEPT = {
    TopicKind.MAIL: "*mail*, below",
    TopicKind.OUTCOMES: "*mail*",
    TopicKind.EVENTS: "`log.keep_events_seconds`",
    TopicKind.DEAD_LETTERS: "embedded: `log.keep_events_seconds`; Kafka: without end",
}


def topic_table() -> str:
    """A row for each kind of topic."""
    rows = [
        "| topic | laned | key | record | written by | read by (group) | kept |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        cells = (
            f"`{family.pattern}`",
            "yes" if family.laned else "no",
            family.key.replace("|", "\\|"),
            family.record,
            family.written_by,
            family.read_by,
            KEPT[family.kind],
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def settings_table() -> str:
    """A row for each setting, as an otherwise default configuration gives it."""
    by_kind = {spec.kind: spec.settings for spec in specs(_default())}
    rows = ["| setting | mail, outcomes | events | dead letters | why |", "| --- | --- | --- | --- | --- |"]
    for name, why in WHY.items():
        mail, events, letters = (
            by_kind[kind][name] for kind in (TopicKind.MAIL, TopicKind.EVENTS, TopicKind.DEAD_LETTERS)
        )
        rows.append(f"| `{name}` | `{mail}` | `{events}` | `{letters}` | {why} |")
    return "\n".join(rows) + "\n"


def _default() -> Config:
    source = {"address": "192.0.2.1", "ehlo": "mail.example.com"}
    log = {"kind": "kafka", "kafka": {"bootstrap_servers": ["kafka:9092"]}}
    pools = {"default": {"sources": [source]}}
    return Config.model_validate({"hostname": "mail.example.com", "data_directory": "data", "pools": pools, "log": log})


def render(page: str) -> str:
    """The page with current tables."""
    for name, table in (("topics", topic_table()), ("settings", settings_table())):
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not (begin and end):
            sys.exit(f"{TARGET}: the markers of the table {name!r} are missing")
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is not current")
    page = TARGET.read_text(encoding="utf-8")
    current = render(page)
    if not parser.parse_args().check:
        TARGET.write_text(current, encoding="utf-8")
    elif page != current:
        print("docs/topics.md is not current; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
