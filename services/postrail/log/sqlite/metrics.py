"""What the embedded log measures of itself. Owns the metrics' declarations; `log` moves them."""

from prometheus_client import Counter, Gauge, Histogram

# No labels. Records that became durable, all topics; nothing to alert on.
RECORDS = Counter("postrail_log_records_total", "Records appended and durable")
# No labels. From the hand-over of a group to its being durable: fsync. Alert when the 99th percentile stays above 0.1 s:
# the disk is too slow for the load.
COMMIT_SECONDS = Histogram(
    "postrail_log_commit_seconds",
    "Time that a write group takes to become durable",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
# reason: full (no room), unavailable (anything else). Alert on any increase.
FAILURES = Counter("postrail_log_failed_groups_total", "Write groups that were rolled back", ["reason"])
# No labels. Bytes that the file holds, freed pages aside. Alert when it approaches log.max_bytes or the disk's size.
USED_BYTES = Gauge("postrail_log_used_bytes", "Size of what the log holds")
# No labels. Bytes of the write-ahead log that are not yet in the main file. Alert when it stays above 1 GiB: checkpoints
# do not keep up.
WAL_BYTES = Gauge("postrail_log_wal_bytes", "Size of the write-ahead log that waits for a checkpoint")
