"""The tool that starts a one-node cluster on this machine: where it is, and what is prepared with it before pytest runs.

Its commands are `up`, `down`, `build-image`, `kafka`, `keda` and `run`. Owns nothing that a test looks at: everything is told
in the variables of `cluster_place`. The cluster is left running, for the next run; its addresses and images, too.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support import cluster_place

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "POSTRAIL_CLUSTER_TOOL"
NUMBER = "POSTRAIL_E2E_NUMBER"
"""Several runs on one cluster at the same time take different ones, 0 to 255."""
INTERFACE = "node0"
KAFKA_IMAGE = "localhost/kafka:4.1.0"
NODE_ADDRESS = "10.200.0.1"
SERVER_PORTS = 9300
POOL_HOSTS = range(11, 17)
RECEIVER_HOSTS = range(101, 109)
EGRESS = "images/egress"
IN_THE_IMAGE = (
    "Dockerfile",
    "pyproject.toml",
    "requirements-build.lock",
    "requirements-operator.lock",
    "services",
    "operator",
)


def find() -> Path | None:
    """The folder of the tool, or None where there is none."""
    given = os.environ.get(VARIABLE)
    folder = Path(given) if given else ROOT.parent / "shared" / "cluster"
    return folder if (folder / "up").is_file() else None


def run(command: str) -> bool:
    """Run a command of the tool; False where there is no tool, or it says that it can't."""
    tool = find()
    return tool is not None and subprocess.run(tool / command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def prepare(tool: Path, *, keda: bool) -> dict[str, str]:
    """Start the cluster, build the images, and add the addresses; what the tests' environment must say about it.

    `keda`: install it, too.
    """
    number = int(os.environ.get(NUMBER, "0"))
    _run(tool / "up")
    image = os.environ.get(cluster_place.IMAGE) or f"postrail:e2e-{_digest()}"
    if not _has_image(image):
        _run(tool / "build-image", ROOT, image)
    egress_image = f"postrail-egress:e2e-{_digest(EGRESS)}"
    if not _has_image(egress_image):
        _run(tool / "build-image", ROOT / EGRESS, egress_image)
    if not _has_image(KAFKA_IMAGE):
        _run(tool / "kafka")
    if keda and not _has_keda(tool):
        _run(tool / "keda")
    network = f"198.18.{number}"  # RFC 2544: for tests
    pool = [f"{network}.{host}" for host in POOL_HOSTS]
    receivers = [f"{network}.{host}" for host in RECEIVER_HOSTS]
    for address in (*pool, *receivers):
        _run(tool / "run", "ip", "address", "replace", f"{address}/32", "dev", INTERFACE)
    home = Path(os.environ.get("CLUSTER_HOME") or Path.home() / ".cache" / "one-node-cluster")
    volumes = home / "volumes" / f"e2e-{number}"
    return {
        cluster_place.NAMESPACE: os.environ.get(cluster_place.NAMESPACE) or f"postrail-e2e-{number}",
        cluster_place.IMAGE: image,
        cluster_place.EGRESS_IMAGE: egress_image,
        cluster_place.KAFKA_IMAGE: KAFKA_IMAGE,
        cluster_place.POOL: ",".join(pool),
        cluster_place.RECEIVERS: ",".join(receivers),
        cluster_place.SERVER: f"{NODE_ADDRESS}:{SERVER_PORTS + number}",
        cluster_place.ZONES: os.environ.get("CLUSTER_ZONES") or str(home / "zones"),
        cluster_place.VOLUMES: str(volumes),
    }


def _digest(*names: str) -> str:
    """Of what the image is made of, so that an image is built once for each state of the code."""
    found = hashlib.sha256()
    for name in names or IN_THE_IMAGE:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix != ".pyc")
        for file in files:
            if file.is_file():
                found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def _has_image(image: str) -> bool:
    """Whether the node has it: asked of the node's own list."""
    home = Path(os.environ.get("CLUSTER_HOME") or Path.home() / ".cache" / "one-node-cluster")
    init = home / "run" / "init"
    pid = init.read_text(encoding="ascii").split()[0]
    command = [
        "nsenter",
        "--target",
        pid,
        "--mount",
        "--pid",
        "--net",
        "--",
        "ctr",
        "--namespace",
        "k8s.io",
        "images",
        "ls",
        "-q",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    full = image if "/" in image else f"docker.io/library/{image}"
    return full in done.stdout.splitlines()


def _has_keda(tool: Path) -> bool:
    command = [str(tool / "run"), "kubectl", "get", "crd", "scaledobjects.keda.sh"]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"test-e2e: {' '.join(map(str, command))} failed with {done.returncode}")
