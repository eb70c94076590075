"""Where the end-to-end tests run: the cluster, the images, and the addresses that pools send from and receivers listen on.

All of it comes from the environment. `python -m tests.cluster` sets it for the cluster that it starts; for another one a person
does, beside KUBECONFIG:

    POSTRAIL_E2E_IMAGE                the image, as pods name it
    POSTRAIL_E2E_POOL_ADDRESSES       four or more addresses, all of one node (POSTRAIL_E2E_NODE; default: the first one)
    POSTRAIL_E2E_RECEIVER_ADDRESSES   four or more addresses of this machine, on whose port 25 that node reaches the tests
    POSTRAIL_E2E_SERVER_ADDRESS       one that pods reach, for the tests' S3 server; `:PORT` may follow
    POSTRAIL_E2E_ZONES                the folder from which the cluster's DNS reads zone files, `db.ZONE` each
    POSTRAIL_E2E_NAMESPACE            optional; the senders' namespace has `-senders` behind it
    POSTRAIL_E2E_EGRESS_IMAGE         optional; the image of images/egress; without it nothing is sent through proxies
    POSTRAIL_E2E_KAFKA_IMAGE          optional; an image that starts a broker by itself
    POSTRAIL_E2E_VOLUMES              optional; a folder of the node for the broker's volume; without it mail dies with its pod
    POSTRAIL_E2E_KEEP                 optional; 1: use the release that is there, and leave it when done
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "POSTRAIL_E2E_NAMESPACE"
IMAGE = "POSTRAIL_E2E_IMAGE"
KAFKA_IMAGE = "POSTRAIL_E2E_KAFKA_IMAGE"
EGRESS_IMAGE = "POSTRAIL_E2E_EGRESS_IMAGE"
POOL = "POSTRAIL_E2E_POOL_ADDRESSES"
RECEIVERS = "POSTRAIL_E2E_RECEIVER_ADDRESSES"
SERVER = "POSTRAIL_E2E_SERVER_ADDRESS"
ZONES = "POSTRAIL_E2E_ZONES"
VOLUMES = "POSTRAIL_E2E_VOLUMES"
NODE = "POSTRAIL_E2E_NODE"
KEEP = "POSTRAIL_E2E_KEEP"
NEEDED = (IMAGE, POOL, RECEIVERS, SERVER, ZONES)


class NoPlace(Exception):
    """There is no cluster for the tests; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster and what is there for the tests.

    Attributes:
        pool: addresses of one node, from which mail leaves.
        receivers: addresses on which the tests listen.
        server: an address on which the tests' S3 server listens; `server_port`: 0 takes a free port.
        zones: the folder of zone files.
        volumes: a folder of the node; None: the broker has no volume.
        node: on which pools' addresses are; "": the first one.
        keep: whether the release is used and left as it is.
    """

    namespace: str
    image: str
    kafka_image: str
    egress_image: str
    pool: tuple[str, ...]
    receivers: tuple[str, ...]
    server: str
    server_port: int
    zones: Path
    volumes: Path | None
    node: str
    keep: bool

    @property
    def senders_namespace(self) -> str:
        """Where senders on the host network run."""
        return f"{self.namespace}-senders"

    @property
    def zone(self) -> str:
        """The DNS zone of this run, under which all its names are."""
        return f"{self.namespace}.test"


def read_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that the environment describes.

    Raises:
        NoPlace: it describes none, or half of one.
    """
    if not environment.get("KUBECONFIG"):
        raise NoPlace(
            "no cluster: set KUBECONFIG (tests/support/cluster_place.py says what else), or POSTRAIL_CLUSTER_TOOL to the folder "
            "of a tool that starts one; then run: make test-e2e"
        )
    if missing := [name for name in NEEDED if not environment.get(name)]:
        raise NoPlace(
            f"KUBECONFIG names a cluster, but not set: {', '.join(missing)}; see tests/support/cluster_place.py"
        )
    server, _, port = environment[SERVER].partition(":")
    return Place(
        environment.get(NAMESPACE) or "postrail-e2e",
        environment[IMAGE],
        environment.get(KAFKA_IMAGE, ""),
        environment.get(EGRESS_IMAGE, ""),
        tuple(environment[POOL].split(",")),
        tuple(environment[RECEIVERS].split(",")),
        server,
        int(port or 0),
        Path(environment[ZONES]),
        Path(environment[VOLUMES]) if environment.get(VOLUMES) else None,
        environment.get(NODE, ""),
        environment.get(KEEP, "") == "1",
    )
