"""The world around Postrail in the end-to-end tests: a DNS server, Postfix, smtp-sink and Dovecot, and the domains they have.

Owns the addresses and zones, and the configuration that fits them. All peers of the MX world listen on one port (Postrail
has one `mx_port`), each on its own loopback address. Its neighbours start the peers: `dns_server`, `postfix`, `dovecot`,
`smtp_tools`; `postrail_process` starts Postrail.
"""

from __future__ import annotations

import contextlib
import copy
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from argon2 import PasswordHasher

from postrail.demo.credentials import write_certificate
from tests.support.dns_server import BROKEN, DnsServer, serving, zone_text
from tests.support.dovecot import Dovecot
from tests.support.postfix import Postfix
from tests.support.postrail_process import PostrailProcess, run_command
from tests.support.postrail_services import PostrailServices
from tests.support.processes import daemon_folder, free_port
from tests.support.smtp_tools import SmtpSink

POSTFIX_ADDRESS = "127.0.21.1"
SINK_ADDRESS = "127.0.21.2"
LATE_ADDRESS = "127.0.21.3"
"""Where nobody listens until a test starts somebody there."""
DEAD_ADDRESS = "127.0.21.4"
RELAY_ADDRESS = "127.0.21.5"
DOVECOT_ADDRESS = "127.0.21.6"
SOURCE_ADDRESS = "127.0.22.1"

SENDER_DOMAIN = "sender.test"
"""Signed by Postrail; its mailboxes are in Dovecot, by LMTP over TCP."""
SOCKET_DOMAIN = "socket.test"
"""Its mailboxes are in Dovecot too, by LMTP over a Unix socket."""
IDNA_DOMAIN = "bücher.test"
POSTFIX_DOMAINS = ("receiver.test", "xn--bcher-kva.test", IDNA_DOMAIN, "broken.test", "second.test", "implicit.test")
MAILBOXES = tuple(f"mailbox{number}" for number in range(200))
"""The users of Dovecot, for tests to take from."""
FULL_MAILBOX = "full"
USER, PASSWORD = "app", "correct horse battery staple"
RSA_SELECTOR = "mail1-rsa"
_MAILBOXES = {**dict.fromkeys(MAILBOXES, ""), FULL_MAILBOX: "*:bytes=100"}


@dataclass(frozen=True, slots=True)
class MailWorld:
    """The running peers."""

    folder: Path
    dns: DnsServer
    postfix: Postfix
    sink: SmtpSink
    dovecot: Dovecot
    mx_port: int
    dkim_records: dict[str, str]
    kafka: str | None
    """The brokers' address, where Postrail uses them; None: the embedded log."""
    _config: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """A configuration for one Postrail in this world, with ports of its own; the caller may change it."""
        config = copy.deepcopy(self._config)
        for listener in config["ingress"]["listeners"]:
            listener["port"] = free_port()
        config["health"]["port"] = free_port()
        if self.kafka is not None:
            config["log"]["kafka"]["topic_prefix"] = f"t{uuid.uuid4().hex[:10]}."
        return config

    @contextlib.contextmanager
    def postrail(self, config: dict[str, Any] | None = None, *, workers: int = 1) -> Iterator[PostrailProcess]:
        """A Postrail that is not started yet, and is killed at the end: on Kafka, each service is a process of its own."""
        with daemon_folder("postrail") as folder:
            described = config or self.config()
            process = (
                PostrailProcess(folder, described, workers=workers)
                if self.kafka is None
                else PostrailServices(folder, described)
            )
            try:
                yield process
            finally:
                process.kill()


def _zones(dkim_zone: str) -> dict[str, str]:
    postfix = f"mx IN A {POSTFIX_ADDRESS}\n"
    via_postfix = "@ IN MX 10 mx.receiver.test.\n"
    zones = {
        SENDER_DOMAIN: dkim_zone,
        "receiver.test": via_postfix + postfix + f"dead IN A {DEAD_ADDRESS}\n",
        "xn--bcher-kva.test": via_postfix,
        "second.test": "@ IN MX 10 dead.receiver.test.\n@ IN MX 20 mx.receiver.test.\n",
        "implicit.test": f"@ IN A {POSTFIX_ADDRESS}\n",
        "sink.test": f"@ IN MX 10 mx\nmx IN A {SINK_ADDRESS}\n",
        "late.test": f"@ IN MX 10 mx\nmx IN A {LATE_ADDRESS}\n",
        "down.test": f"@ IN MX 10 mx\nmx IN A {DEAD_ADDRESS}\n",
        "nullmx.test": "@ IN MX 0 .\n",
    }
    texts = {name: zone_text(name, records, ttl=60, negative_ttl=1) for name, records in zones.items()}
    return {**texts, "broken.test": BROKEN}


REPAIRED_ZONE = zone_text("broken.test", "@ IN MX 10 mx.receiver.test.\n", ttl=60, negative_ttl=1)
"""What brings broken.test back."""


def _base_config(folder: Path, nameserver: str, mx_port: int, lmtp: Dovecot) -> dict[str, Any]:
    certificate, key = write_certificate(folder, "mail.sender.test")
    hasher = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    return {
        "hostname": "mail.sender.test",
        "ingress": {
            "tls": {"certificate_file": str(certificate), "key_file": str(key)},
            "listeners": [
                {"kind": "submission", "address": "127.0.0.1", "port": 0},
                {"kind": "submissions", "address": "127.0.0.1", "port": 0},
                {
                    "kind": "trusted",
                    "address": "127.0.0.1",
                    "port": 0,
                    "networks": ["127.0.0.0/8"],
                    "submitter": "relay",
                },
            ],
            "limits": {"max_message_bytes": "30MiB"},
        },
        "submitters": [
            {
                "name": USER,
                "password_hash": hasher.hash(PASSWORD),
                "domains": [SENDER_DOMAIN],
                "streams": ["brief", "marketing"],
                "null_sender": True,
            },
            {"name": "relay", "domains": [SENDER_DOMAIN], "null_sender": True},
        ],
        "streams": {
            "transactional": {"lane": "urgent"},
            "marketing": {"lane": "bulk"},
            "brief": {"lane": "urgent", "lifetime_seconds": 3},
        },
        "pools": {"default": {"sources": [{"address": SOURCE_ADDRESS, "ehlo": "out1.sender.test"}]}},
        "routing": {
            "dns": {"nameservers": [nameserver], "timeout_seconds": 1, "tries": 2, "negative_ttl_seconds": 0.5},
            "local_domains": {
                SENDER_DOMAIN: {"host": lmtp.address, "port": lmtp.port},
                SOCKET_DOMAIN: {"host": f"unix:{lmtp.socket}"},
            },
            "mx_port": mx_port,
            "allow_loopback": True,
        },
        "delivery": {
            "default_limits": {"messages_per_second": 10000, "new_connections_per_minute": 60000},
            "timeouts": {"connect_seconds": 3, "greeting_seconds": 10, "idle_seconds": 2},
            "retry": {
                "delays_seconds": [0.5, 0.5, 1],
                "tiers_seconds": [0.5, 1, 2],
                "site_backoff_seconds": [0.5, 1],
                "delay_warning_seconds": 1,
            },
            "drain_seconds": 5,
        },
        "log": {"min_free_bytes": "10MiB"},
        "health": {"port": 0},
    }


def _make_keys(folder: Path) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Make the sender's keys with Postrail's own command.

    Returns:
        What it printed for a zone file, the same as name → text, and the part of the configuration that it printed.
    """
    done = run_command("dkim", "generate", SENDER_DOMAIN, "--selector", "mail1", "--directory", str(folder / "keys"))
    assert done.returncode == 0, done.stderr
    records = re.findall(r"^(\S+)\. IN TXT \((.*?)\)", done.stdout, re.MULTILINE | re.DOTALL)
    texts = {name: "".join(re.findall(r'"([^"]*)"', value)) for name, value in records}
    zone = "".join(f"{name}. IN TXT ({value})\n" for name, value in records)
    return zone, texts, yaml.safe_load(done.stdout[done.stdout.index("\nsigning:") :])["signing"]


@contextlib.contextmanager
def mail_world(kafka: str | None = None) -> Iterator[MailWorld]:
    """Start all peers; stop them at the end.

    Args:
        kafka: the brokers on which Postrail's log is to be; None: the embedded log.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(daemon_folder("world"))
        dkim_zone, dkim_records, signing = _make_keys(folder)
        mx_port = free_port()
        dns = stack.enter_context(serving(_zones(dkim_zone)))
        postfix = Postfix(_below(folder, "postfix"), POSTFIX_ADDRESS, mx_port, POSTFIX_DOMAINS)
        stack.callback(postfix.close)
        postfix.start()
        sink = SmtpSink(_below(folder, "sink"), SINK_ADDRESS, mx_port)
        stack.callback(sink.stop)
        sink.start()
        dovecot = Dovecot(_below(folder, "dovecot"), DOVECOT_ADDRESS, free_port(), _MAILBOXES)
        stack.callback(dovecot.stop)
        dovecot.start()
        config = {**_base_config(folder, dns.nameserver, mx_port, dovecot), "signing": signing}
        if kafka is not None:
            config["log"] = {"kind": "kafka", "kafka": _kafka_config(kafka)}
        yield MailWorld(folder, dns, postfix, sink, dovecot, mx_port, dkim_records, kafka, config)


def _kafka_config(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap_servers": bootstrap.split(","),
        "partitions": 3,
        "replication_factor": 1,
        "min_insync_replicas": 1,
        "session_timeout_seconds": 6,
        "rebalance_timeout_seconds": 15,
    }


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path
