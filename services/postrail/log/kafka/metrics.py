"""What the Kafka log measures of itself. Owns the metrics' declarations; the modules beside it move them."""

from prometheus_client import Counter, Gauge, Histogram

# No labels. Records that the brokers acknowledged, all topics; nothing to alert on.
RECORDS = Counter("postrail_kafka_records_total", "Records appended and acknowledged")
# No labels. Batches they travelled in; records divided by batches shows how well they are bundled. Nothing to alert on.
BATCHES = Counter("postrail_kafka_batches_total", "Record batches appended and acknowledged")
# No labels. From the sending of a batch to its acknowledgement by all in-sync replicas. Alert when the 99th percentile stays
# above 1 s: the brokers are too slow for the load.
APPEND_SECONDS = Histogram(
    "postrail_kafka_append_seconds",
    "Time from sending a batch to its acknowledgement",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# reason: expired (never sent), unacknowledged (sent, outcome unknown), too_large, refused (anything else). Alert on any
# increase of another reason than expired, and on expired when it lasts.
FAILURES = Counter("postrail_kafka_append_failures_total", "Append calls that failed", ["reason"])
# No labels. A producer that failed a batch is replaced. Alert when it keeps growing while the brokers are well.
REPLACEMENTS = Counter("postrail_kafka_producer_replacements_total", "Producers that were replaced")
# No labels. Bytes of appends that wait for their acknowledgement. Alert when it stays near log.kafka.buffer_bytes.
WAITING_BYTES = Gauge("postrail_kafka_waiting_bytes", "Bytes of appends that wait for their acknowledgement")
# reason: lost (the partition belongs to another member by now), failed (the brokers did not take it; tried again). Dropped
# commits are repeated work, not lost mail. Alert when failed lasts.
COMMITS_DROPPED = Counter("postrail_kafka_commits_dropped_total", "Commits that were not stored", ["reason"])
# No labels. How often this process's partitions were taken and given anew. Alert on more than a few an hour: something makes
# members come and go.
REBALANCES = Counter("postrail_kafka_rebalances_total", "Rebalances that this process took part in")
# No labels. Groups that were positioned at the earliest record because what they had committed lies beyond the end of the
# partition: the topic was made anew. Alert on any increase.
RESETS = Counter("postrail_kafka_offset_resets_total", "Partitions whose committed offset did not fit the topic")
# No labels. Bytes fetched and not yet taken by the service. Nothing to alert on.
FETCHED_BYTES = Gauge("postrail_kafka_fetched_bytes", "Bytes of records fetched ahead")
# No labels. Seconds that this process may still act as the owner of its partitions; the least of all its groups. Alert when
# it stays at 0 or below: the group's coordinator is not heard of, and no mail leaves.
LEASE_SECONDS = Gauge("postrail_kafka_lease_seconds", "Seconds until the ownership of the partitions is stale")
