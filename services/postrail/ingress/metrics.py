"""What ingress counts. Owns the declarations; the modules beside it move them."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from postrail.core.refusals import Reason, Refused

# No labels. Alert near ingress.limits.max_connections: clients are about to be answered 421.
OPEN_CONNECTIONS: Final = Gauge("postrail_ingress_open_connections", "Submission connections open now")
# outcome: accepted, refused (421 at connect). Alert on a lasting rate of refused: a client misbehaves, or a cap is too low.
CONNECTIONS: Final = Counter("postrail_ingress_connections_total", "Submission connections", ["outcome"])
# stream: as configured. Alert when it stops while clients connect.
ACCEPTED: Final = Counter("postrail_ingress_messages_accepted_total", "Messages stored and answered 250", ["stream"])
# No labels. Content of accepted messages; for capacity planning.
ACCEPTED_BYTES: Final = Counter("postrail_ingress_accepted_bytes_total", "Content of accepted messages")
# code_class: 4, 5; reason: syntax, sequence, parameter, auth_required, tls_required, auth_failed, address, sender, relay,
# stream, size, content, loop, recipients, signing_key, storage, unavailable, rate, connections, errors, timeout, shutdown,
# internal. Alert on storage, unavailable, internal and signing_key at once, on others when their rate changes.
REFUSED: Final = Counter("postrail_ingress_refusals_total", "Commands and messages not taken", ["code_class", "reason"])
# No labels. Alert on a rate of several a minute: somebody guesses passwords, or a submitter's password changed.
AUTH_FAILURES: Final = Counter("postrail_ingress_auth_failures_total", "AUTH attempts with wrong credentials")
# No labels. Seconds from content complete to durable. Alert when the 99th percentile exceeds 1 s: the disk is slow.
APPEND_SECONDS: Final = Histogram(
    "postrail_ingress_append_seconds",
    "How long the durable append of a message took",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

CONNECTION_ACCEPTED: Final = CONNECTIONS.labels("accepted")
CONNECTION_REFUSED: Final = CONNECTIONS.labels("refused")
_REFUSED: Final = {
    (code_class, reason): REFUSED.labels(str(code_class), reason.value) for code_class in (4, 5) for reason in Reason
}


def count_refusal(refused: Refused) -> None:
    """Move REFUSED."""
    _REFUSED[(refused.reply.code // 100, refused.reason)].inc()
