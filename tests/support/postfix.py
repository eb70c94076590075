"""Postfix as a receiver: a whole instance of its own on one loopback address, delivering into a maildir that tests read.

Owns the instance's folder and its processes. Who is refused is decided by a policy service that the test controls
(`PolicyServer`), so that Postfix itself says it, in its own words, and every attempt is seen with its TLS and its client.
Recipients whose name starts with `nobody` do not exist. Needs root, as Postfix does. Its neighbour: `processes`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from postrail.demo.credentials import write_certificate
from tests.support.maildir import Maildir
from tests.support.processes import Daemon, accepts, tail, wait_for
from tests.support.tools import in_ci, require_tool

ACCEPT = "DUNNO"
MESSAGE_SIZE_LIMIT_BYTES = 200_000

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop
myhostname = {hostname}
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtputf8_enable = {smtputf8}
message_size_limit = {size_limit}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = {domains}
virtual_mailbox_maps = regexp:{folder}/mailboxes
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_tls_security_level = {tls}
smtpd_tls_cert_file = {folder}/certificate.pem
smtpd_tls_key_file = {folder}/key.pem
smtpd_tls_received_header = yes
smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service inet:127.0.0.1:{policy_port}
smtpd_delay_reject = yes
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
"""

MASTER_CF = """\
{address}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""

MAILBOXES = """\
if !/^nobody/
/./ all/
endif
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A recipient that a client named, as Postfix describes it to a policy service."""

    recipient: str
    sender: str
    client_address: str
    helo_name: str
    tls: str
    answer: str


class PolicyServer:
    """Postfix's policy protocol (SMTPD_POLICY_README): answers each recipient with what the test wants next."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._answers: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                attributes: dict[str, str] = {}
                for line in self.rfile:
                    name, equals, value = line.decode().rstrip("\n").partition("=")
                    if equals:
                        attributes[name] = value
                        continue
                    self.wfile.write(f"action={outer._decide(attributes)}\n\n".encode())
                    attributes = {}

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._server.server_address[1])

    def answer(self, recipient: str, *answers: str) -> None:
        """Give these answers to the recipient's next attempts; the last one repeats."""
        with self._lock:
            self._answers[recipient.lower()] = list(answers)

    def attempts_for(self, recipient: str) -> list[Attempt]:
        """What was tried so far for the recipient, in order."""
        with self._lock:
            return [attempt for attempt in self.attempts if attempt.recipient == recipient.lower()]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _decide(self, attributes: dict[str, str]) -> str:
        recipient = attributes.get("recipient", "").lower()
        with self._lock:
            waiting = self._answers.get(recipient, [ACCEPT])
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            self.attempts.append(
                Attempt(
                    recipient=recipient,
                    sender=attributes.get("sender", ""),
                    client_address=attributes.get("client_address", ""),
                    helo_name=attributes.get("helo_name", ""),
                    tls=attributes.get("encryption_protocol", ""),
                    answer=answer,
                )
            )
        return answer


class Postfix:
    """One receiving instance. Start it with `start`, end it with `stop`; it can be started again."""

    def __init__(
        self,
        folder: Path,
        address: str,
        port: int,
        domains: Sequence[str],
        *,
        hostname: str = "mx.receiver.test",
        tls: bool = True,
        smtputf8: bool = True,
        size_limit_bytes: int = MESSAGE_SIZE_LIMIT_BYTES,
    ) -> None:
        self._postfix = require_tool("postfix", "it receives what Postrail delivers")
        _require_root()
        self._folder, self.address, self.port, self.hostname = folder, address, port, hostname
        self.policy = PolicyServer()
        self._daemon: Daemon | None = None
        self._mail = Maildir(folder / "mail" / "all")
        user = pwd.getpwnam("postfix")
        for name in ("queue", "data", "mail"):
            (folder / name).mkdir()
        for name in ("data", "mail"):
            os.chown(folder / name, user.pw_uid, user.pw_gid)
        write_certificate(folder, hostname)
        settings = {
            "folder": folder,
            "address": address,
            "port": port,
            "hostname": hostname,
            "domains": ", ".join(domains),
            "uid": user.pw_uid,
            "gid": user.pw_gid,
            "policy_port": self.policy.port,
            "tls": "may" if tls else "none",
            "smtputf8": "yes" if smtputf8 else "no",
            "size_limit": size_limit_bytes,
        }
        (folder / "main.cf").write_text(MAIN_CF.format(**settings), encoding="utf-8")
        (folder / "master.cf").write_text(MASTER_CF.format(**settings), encoding="utf-8")
        (folder / "mailboxes").write_text(MAILBOXES, encoding="utf-8")
        dynamic_maps = Path("/etc/postfix/dynamicmaps.cf")
        if dynamic_maps.exists():
            shutil.copy(dynamic_maps, folder)

    @property
    def log(self) -> Path:
        """Postfix's own log."""
        return self._folder / "postfix.log"

    def start(self) -> None:
        """Start and return when it accepts connections."""
        check = subprocess.run(
            [self._postfix, "-c", self._folder, "check"], capture_output=True, text=True, timeout=30, check=False
        )
        assert check.returncode == 0, (check.stdout, check.stderr, tail(self.log))
        master = require_tool("master", "it is Postfix's main process")
        self._daemon = Daemon([master, "-c", self._folder, "-d"], self._folder / "output.log")
        self._daemon.wait_until(f"port {self.port}", lambda: accepts(self.address, self.port))

    def stop(self) -> None:
        """End all its processes; mailboxes stay."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self.policy.close()

    def mail_for(self, address: str) -> list[bytes]:
        """The messages that arrived for one address, oldest first, with CRLF line ends."""
        mark = f"\r\nDelivered-To: {address}\r\n".encode()
        return [message for message in self._mail.messages() if mark in message]

    def wait_for_mail(self, address: str, count: int = 1, seconds: float = 20.0) -> list[bytes]:
        """Wait until so many messages arrived for the address and return them."""

        def arrived() -> list[bytes] | None:
            found = self.mail_for(address)
            return found if len(found) >= count else None

        try:
            return wait_for(f"{count} messages for {address}", arrived, seconds)
        except BaseException:
            print(tail(self.log))
            raise


def _require_root() -> None:
    if os.geteuid() == 0:
        return
    reason = "Postfix starts as root only: run the tests as root"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
