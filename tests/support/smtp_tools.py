"""Postfix's smtp-source and smtp-sink, swaks, and two verifiers of DKIM signatures that share no code with Postrail.

Owns their command lines and what their output means. Its neighbours: `processes`, which starts them, and `tools`, which finds
them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Daemon, accepts, tail, wait_for
from tests.support.tools import require_tool


@dataclass(frozen=True, slots=True)
class Received:
    """A transaction that smtp-sink took: who sent to whom, and the message with CRLF line ends.

    `mail_arguments` and each of `recipient_arguments` is what followed MAIL and RCPT.
    """

    client_address: str
    helo: str
    mail_arguments: str
    recipient_arguments: tuple[str, ...]
    message: bytes

    @property
    def recipients(self) -> tuple[str, ...]:
        """The addresses alone."""
        return tuple(_in_brackets(argument) for argument in self.recipient_arguments)


def _in_brackets(text: str) -> str:
    return text.partition("<")[2].partition(">")[0]


class SmtpSink:
    """smtp-sink with a file for each transaction."""

    def __init__(self, folder: Path, address: str, port: int, *options: str) -> None:
        self._folder, self.address, self.port, self._options = folder, address, port, options
        self._dumps = folder / "dumps"
        self._dumps.mkdir(parents=True)
        self._dumps.chmod(0o777)
        self._daemon: Daemon | None = None

    def start(self) -> None:
        """Start and return when it accepts connections."""
        program = require_tool("smtp-sink", "it counts what Postrail delivers")
        user = ["-u", "postfix"] if os.geteuid() == 0 else []
        where = f"{self.address}:{self.port}"
        self._daemon = Daemon(
            [program, *user, *self._options, "-d", self._dumps / "t.", where, "512"], self._folder / "sink.log"
        )
        self._daemon.wait_until(where, lambda: accepts(self.address, self.port))

    def stop(self) -> None:
        """End it; what it took stays."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def count(self) -> int:
        """How many transactions it began to write."""
        return sum(1 for _ in self._dumps.iterdir())

    def received(self) -> list[Received]:
        """Everything that it took, in no order."""
        return [_parse_dump(path.read_bytes()) for path in self._dumps.iterdir()]

    def received_for(self, recipient: str) -> list[Received]:
        """What it took for one address."""
        mark = f"<{recipient}>".encode()
        paths = [path for path in self._dumps.iterdir() if mark in _start_of(path)]
        found = [_parse_dump(path.read_bytes()) for path in paths]
        return [transaction for transaction in found if recipient in transaction.recipients]

    def wait_for_mail(self, recipient: str, seconds: float = 20.0) -> list[Received]:
        """Wait until there is something for the address, complete, and return it."""

        def complete() -> list[Received]:
            return [one for one in self.received_for(recipient) if b"\r\n\r\n" in one.message]

        try:
            return wait_for(f"mail for {recipient} in smtp-sink", complete, seconds)
        except BaseException:
            status = self._daemon.status() if self._daemon else "stopped"
            print(f"--- smtp-sink: status {status}\n{tail(self._folder / 'sink.log')}")
            raise


def _start_of(path: Path) -> bytes:
    """Enough of a dump to hold the envelope."""
    with path.open("rb") as dump:
        return dump.read(16_384)


def _parse_dump(data: bytes) -> Received:
    """Read smtp-sink's dump: X- fields, a Received field of three lines, then the message and one empty line."""
    head, _, rest = data.partition(b"\nReceived: ")
    fields: dict[str, list[str]] = {}
    for line in head.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(": ")
        fields.setdefault(name, []).append(value)
    message = b"".join(line + b"\r\n" for line in rest.split(b"\n")[3:-2])
    return Received(
        client_address=fields.get("X-Client-Addr", [""])[0],
        helo=fields.get("X-Helo-Args", [""])[0],
        mail_arguments=fields.get("X-Mail-Args", [""])[0],
        recipient_arguments=tuple(fields.get("X-Rcpt-Args", [])),
        message=message,
    )


def smtp_source(
    address: str, port: int, sender: str, recipient: str, *, messages: int, sessions: int, size: int
) -> None:
    """Submit messages of `size` bytes over so many sessions; with several messages the recipient gets a number in front.

    Raises:
        AssertionError: the server refused something.
    """
    program = require_tool("smtp-source", "it submits many messages at once")
    options = ["-c", "-N", "-m", str(messages), "-s", str(sessions), "-l", str(size), "-f", sender, "-t", recipient]
    done = subprocess.run(
        [program, *options, f"{address}:{port}"], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr


def swaks(*options: str) -> str:
    """Run swaks and return its transcript; its exit status must be 0."""
    program = require_tool("swaks", "it submits as other programs do")
    done = subprocess.run([program, *options], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_MAIL_DKIM = r"""
use strict; use warnings;
use Net::DNS; use Mail::DKIM::Verifier; use Mail::DKIM::DNS;
my ($host, $port) = @ARGV;
Mail::DKIM::DNS::resolver(
    Net::DNS::Resolver->new(nameservers => [$host], port => $port, recurse => 0, udp_timeout => 5, dnsrch => 0));
my $verifier = Mail::DKIM::Verifier->new;
binmode STDIN;
while (<STDIN>) { $verifier->PRINT($_) }
$verifier->CLOSE;
for my $signature ($verifier->signatures) {
    print join(' ', $signature->domain, $signature->selector, $signature->algorithm, $signature->result_detail), "\n";
}
"""


@dataclass(frozen=True, slots=True)
class SignatureResult:
    """What Mail::DKIM says about one signature: `result` is `pass`, or `fail (why)`."""

    domain: str
    selector: str
    algorithm: str
    result: str


def verify_with_mail_dkim(message: bytes, nameserver_host: str, nameserver_port: int) -> list[SignatureResult]:
    """Verify every signature that Mail::DKIM knows (RSA) with the keys in the DNS.

    Args:
        message: as it was on the wire, with CRLF line ends.
    """
    require_tool("dkimproxy-verify", "its package brings Mail::DKIM, which verifies signatures")
    done = subprocess.run(
        [require_tool("perl", "Mail::DKIM is written in it"), "-e", _MAIL_DKIM, nameserver_host, str(nameserver_port)],
        input=message,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [SignatureResult(*line.split(" ", 3)) for line in done.stdout.decode().splitlines()]


def verify_with_opendkim(message: bytes, keys: Mapping[str, str], folder: Path) -> str:
    """Verify with OpenDKIM's test mode and return what it prints; the word is `verification (s=… d=…) succeeded`.

    Args:
        keys: `selector._domainkey.domain` → the text of its TXT record.
        folder: for the files that it reads.
    """
    opendkim = require_tool("opendkim", "it verifies signatures")
    (folder / "keys.txt").write_text("".join(f"{name} {text}\n" for name, text in keys.items()), encoding="ascii")
    (folder / "opendkim.conf").write_text(f"Mode v\nTestPublicKeys {folder}/keys.txt\nSyslog no\n", encoding="ascii")
    (folder / "message.eml").write_bytes(message)
    command: Sequence[str | Path] = [opendkim, "-x", folder / "opendkim.conf", "-v", "-t", folder / "message.eml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return re.sub(r"\s+", " ", done.stdout + done.stderr)
