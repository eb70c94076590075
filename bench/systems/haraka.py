"""Haraka on two cluster nodes with its DKIM plugin and its own outbound queue.

The outbound queue writes each message to a file and fsyncs it before it says 250 (FsyncWriteStream), so it is durable as
it comes, but for the directory entry. Haraka opens a connection for each delivery: it has had no pool since version 3.1.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bench.dkim_key import SELECTOR, SENDER_DOMAIN
from bench.load import BenchmarkError, tool
from bench.systems.base import System

_HERE = Path(__file__).resolve().parent.parent
_PLUGIN = _HERE / "haraka" / "bench_relay.js"
_MANIFEST = _HERE / "haraka" / "package.json"
_NODES = 2

_FILES = {
    "plugins": "bench_relay\ndkim\n",
    "me": "haraka.test\n",
    "host_list": "",
    "smtp.ini": "listen=127.0.0.1:{port}\nnodes={nodes}\n",
    "log.ini": "[main]\nlevel=warn\nformat=default\ntimestamps=false\n",
    "outbound.ini": "enable_tls=false\nlocal_mx_ok=true\nconcurrency_max=50\ninet_prefer=v4\n",
    "bench_relay.ini": "port={sink_port}\n",
    "dkim.ini": (
        "[sign]\nenabled=true\nselector={selector}\ndomain={domain}\n"
        "headers=From, Sender, Reply-To, Subject, Date, Message-ID, To, Cc, MIME-Version, Content-Type\n"
        "[canon]\nbody=relaxed\n[verify]\nenabled=false\n"
    ),
}


def installation() -> Path:
    """Return the directory that holds Haraka's node_modules: BENCH_HARAKA_DIR, or bench/.cache/haraka."""
    return Path(os.environ.get("BENCH_HARAKA_DIR") or _HERE / ".cache" / "haraka")


def install() -> None:
    """Install Haraka with npm when it is not there yet.

    Raises:
        BenchmarkError: npm failed; the text is its own.
    """
    directory = installation()
    if (directory / "node_modules" / "Haraka" / "package.json").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(_MANIFEST, directory)
    shutil.copy(_MANIFEST.with_name("package-lock.json"), directory)
    command = [tool("npm"), "ci", "--no-audit", "--no-fund", "--omit=dev", "--omit=optional"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"npm could not install Haraka into {directory}:\n{done.stderr[-2000:]}")


class Haraka(System):
    """Haraka, two nodes."""

    name: ClassVar[str] = "haraka"
    label: ClassVar[str] = "Haraka"

    @staticmethod
    def version() -> str:
        """Install it where needed; return its version and Node's."""
        install()
        package = json.loads((installation() / "node_modules" / "Haraka" / "package.json").read_text())
        node = subprocess.run([tool("node"), "--version"], check=True, capture_output=True, text=True).stdout.strip()
        return f"Haraka {package['version']} ({_NODES} nodes, Node.js {node})"

    def launch(self) -> None:
        """Write Haraka's configuration directory and start the cluster."""
        directory = self.setup.directory
        modules = installation() / "node_modules"
        shutil.copytree(
            modules / "Haraka" / "config", directory / "config", dirs_exist_ok=True
        )  # as `haraka --install` does
        for part in ("plugins", "queue"):
            (directory / part).mkdir(exist_ok=True)
        values = {
            "port": self.port,
            "nodes": _NODES,
            "sink_port": self.setup.sink_port,
            "selector": SELECTOR,
            "domain": SENDER_DOMAIN,
        }
        for name, text in _FILES.items():
            (directory / "config" / name).write_text(text.format(**values))
        shutil.copyfile(self.setup.key.private_key_file, directory / "config" / "dkim.private.key")
        shutil.copy(_PLUGIN, directory / "plugins")
        self.spawn("haraka", [str(modules / ".bin" / "haraka"), "-c", str(directory)], {"NODE_ENV": "production"})
