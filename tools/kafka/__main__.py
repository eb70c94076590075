"""`python -m tools.kafka`: runs Kafka in the foreground until ctrl-C; `make kafka` is the short way."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tools.kafka import distribution
from tools.kafka.distribution import KafkaMissing
from tools.kafka.nodes import Cluster, KafkaFailed, is_free

_WATCH_SECONDS = 1.0


def main() -> int:
    """Start, print the address, wait for the end; exit status 1 when a node failed, 69 when something is missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.kafka", description="Runs a real Kafka on loopback ports.")
    parser.add_argument(
        "--brokers", type=int, default=1, metavar="N", help="1, or 3 to lose one (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, metavar="PORT", help="of the first broker; default: a free one")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keeps the data; default: a temporary folder")
    parser.add_argument("--fetch-only", action="store_true", help="bring Kafka's jars and end")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not distribution.fetched():
            print(f"fetching Kafka {distribution.KAFKA_VERSION} into {distribution.folder()}", flush=True)
        if args.fetch_only:
            distribution.fetch()
            return 0
        with tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True) as temporary:
            return _run(args, args.data or Path(temporary))
    except (KafkaFailed, KafkaMissing) as error:
        print(error, file=sys.stderr)
        return 69 if isinstance(error, KafkaMissing) else 1
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace, data: Path) -> int:
    ports = [] if args.port is None else [args.port]
    if not all(map(is_free, ports)):
        raise KafkaFailed(f"port {args.port} of 127.0.0.1 is taken; name another: make kafka KAFKA_ARGS='--port PORT'")
    cluster = Cluster(data.resolve(), args.brokers, ports=ports)
    try:
        cluster.start()
        print(f"bootstrap: {cluster.bootstrap}")
        print(f"for the tests: export KAFKA_BOOTSTRAP_SERVERS={cluster.bootstrap}")
        print("ctrl-C ends it" + ("" if args.data is None else f" and keeps the data in {args.data}"), flush=True)
        while True:
            for node in cluster.nodes:
                node.check_alive()
            time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        cluster.stop()


if __name__ == "__main__":
    raise SystemExit(main())
