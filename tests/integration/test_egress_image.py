"""The egress proxy's program, without its image: it keeps a Dante for each address, by the rules that the chart renders."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.processes import Daemon, accepts, daemon_folder, free_port, wait_for
from tests.support.tools import require_tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "postrail"
PROGRAM = ROOT / "images" / "egress" / "egress"
NODE, FIRST, SECOND, ELSEWHERE = "127.0.0.1", "127.0.45.5", "127.0.45.6", "192.0.2.99"


@dataclass
class Egress:
    """The program, as a pod of the DaemonSet runs it."""

    folder: Path
    port: int
    daemon: Daemon | None = None

    def addresses(self, *lines: str) -> None:
        """What the ConfigMap says from now on."""
        (self.folder / "addresses").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def environment(self) -> dict[str, str]:
        state = str(self.folder / "state")
        made = {"EGRESS_FOLDER": str(self.folder), "EGRESS_STATE": state, "EGRESS_LOOK_SECONDS": "0.2"}
        return {**made, "NODE_ADDRESS": NODE}

    def probe(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", PROGRAM, verb], env=self.environment(), capture_output=True, text=True, check=False, timeout=10
        )


def rules(port: int, client: str) -> str:
    """The chart's, for receivers at one port."""
    helm = require_tool("helm", "renders the chart's rules")
    values = ROOT / "tests" / "golden" / "chart" / "host-network.yaml"
    settings = f"routing.mxPort={port},egress.clients={{{client}}},egress.blocked={{127.0.45.77/32,::1/128}}"
    command = [
        helm,
        "template",
        "postrail",
        str(CHART),
        "--kube-version",
        "1.34.0",
        "-f",
        str(values),
        "--set",
        settings,
    ]
    done = subprocess.run(
        [*command, "--show-only", "templates/egress.yaml"], capture_output=True, text=True, check=True, timeout=60
    )
    [config] = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "ConfigMap"]
    return str(config["data"]["rules.conf"])


@contextlib.contextmanager
def serving(port: int, *lines: str, client: str = "127.0.0.0/8") -> Iterator[Egress]:
    require_tool("danted", "it is the egress proxy")
    require_tool("ip", "says which addresses a node has")
    with daemon_folder("egress") as folder:
        egress = Egress(folder, port)
        (folder / "rules.conf").write_text(rules(port, client), encoding="utf-8")
        egress.addresses(*lines)
        egress.daemon = Daemon(["sh", PROGRAM, "serve"], folder / "log", environment=egress.environment())
        try:
            egress.daemon.wait_until("has looked", lambda: egress.probe("alive").returncode == 0)
            yield egress
        finally:
            egress.daemon.stop()


@contextlib.contextmanager
def receiver(address: str = NODE) -> Iterator[socket.socket]:
    with socket.create_server((address, 0)) as listening:
        listening.settimeout(5)
        yield listening


def ask(proxy_port: int, target: str, port: int) -> tuple[int, str]:
    """SOCKS5's answer code to CONNECT (RFC 1928), and the address that the proxy says it bound."""
    with socket.create_connection((NODE, proxy_port), timeout=5) as connection:
        connection.sendall(b"\x05\x01\x00")
        if connection.recv(2) != b"\x05\x00":
            return -1, ""
        connection.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(target) + port.to_bytes(2, "big"))
        answer = connection.recv(10)
        if len(answer) < 10:  # closed before its whole answer
            return -1, ""
        return answer[1], socket.inet_ntoa(answer[4:8])


def leaves_from(proxy_port: int, port: int) -> str:
    """The address from which a connection to this port of the node leaves now; empty while the port changes hands."""
    try:
        return ask(proxy_port, NODE, port)[1]
    except OSError:  # a Dante that is just ending resets what it had accepted
        return ""


def test_each_port_leaves_from_its_address() -> None:
    ports = free_port(), free_port(), free_port()
    with (
        receiver() as listening,
        serving(
            listening.getsockname()[1], f"{ports[0]} {FIRST}", f"{ports[1]} {SECOND}", f"{ports[2]} {ELSEWHERE}"
        ) as egress,
    ):
        wait_for("both ports", lambda: accepts(NODE, ports[0]) and accepts(NODE, ports[1]))
        for port, address in zip(ports, (FIRST, SECOND), strict=False):
            assert ask(port, NODE, egress.port) == (0, address)
            connection, peer = listening.accept()
            connection.close()
            assert peer[0] == address
        assert not accepts(NODE, ports[2]), "an address of another node is not served here"
        assert not accepts(FIRST, ports[0]), "nobody listens on an address from which mail leaves"
        assert egress.probe("ready").returncode == 0


def test_addresses_come_and_go() -> None:
    ports = free_port(), free_port()
    with receiver() as listening, serving(listening.getsockname()[1], f"{ports[0]} {ELSEWHERE}") as egress:
        done = egress.probe("ready")
        assert (done.returncode, "this node has none of the addresses" in done.stderr) == (1, True)
        egress.addresses(f"{ports[0]} {FIRST}", f"{ports[1]} {SECOND}")
        wait_for("both", lambda: accepts(NODE, ports[0]) and accepts(NODE, ports[1]))
        egress.addresses(f"{ports[1]} {FIRST}")
        wait_for("the first port to close", lambda: not accepts(NODE, ports[0]))
        wait_for("the other address", lambda: leaves_from(ports[1], egress.port) == FIRST)


def test_a_dante_that_ended_is_started_again() -> None:
    port = free_port()
    with receiver() as listening, serving(listening.getsockname()[1], f"{port} {FIRST}") as egress:
        wait_for("the port", lambda: accepts(NODE, port))
        process = int((egress.folder / "state" / f"{port}.pid").read_text())
        subprocess.run(["kill", str(process)], check=True)
        wait_for("another one", lambda: int((egress.folder / "state" / f"{port}.pid").read_text() or 0) != process)
        wait_for("the port again", lambda: leaves_from(port, egress.port) == FIRST)
        assert ask(port, NODE, egress.port) == (0, FIRST)


def test_it_is_no_open_proxy() -> None:
    port = free_port()
    with (
        receiver() as listening,
        receiver("127.0.45.77") as other,
        serving(listening.getsockname()[1], f"{port} {FIRST}"),
    ):
        wait_for("the port", lambda: accepts(NODE, port))
        not_allowed = 2
        assert ask(port, NODE, other.getsockname()[1])[0] == not_allowed, "another port than that of receivers"
        assert ask(port, "127.0.45.77", listening.getsockname()[1])[0] == not_allowed, "a blocked network"
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()


def test_strangers_are_refused() -> None:
    port = free_port()
    with receiver() as listening, serving(listening.getsockname()[1], f"{port} {FIRST}", client="10.244.0.0/16"):
        wait_for("the port", lambda: accepts(NODE, port))
        with pytest.raises((OSError, AssertionError)):
            assert ask(port, NODE, listening.getsockname()[1])[0] == 0


def test_it_ends_when_told() -> None:
    port = free_port()
    with receiver() as listening, serving(listening.getsockname()[1], f"{port} {FIRST}") as egress:
        wait_for("the port", lambda: accepts(NODE, port))
        assert egress.daemon is not None
        assert egress.daemon.stop(seconds=5) == 0
        wait_for("the port to close", lambda: not accepts(NODE, port))
