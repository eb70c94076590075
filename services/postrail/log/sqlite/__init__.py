"""The embedded log: one SQLite file for each worker, in WAL mode with `synchronous=FULL`, through `apsw`.

Owns everything that knows SQL. `log` is the running log, `inspect` looks at a file from another process. Design and
measurements: docs/design/2026-11-22-embedded-log.md.
"""

from postrail.log.sqlite.log import SqliteLog, open_log

__all__ = ["SqliteLog", "open_log"]
