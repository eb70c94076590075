"""A release of the chart for the end-to-end tests: its values, and the objects that give it something to do.

Owns the namespaces, the volume of the broker, what the release needs in them, and their removal. What a test does with it is the
test's. Neighbours: `cluster_place` (where), `kubectl` (how).
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from argon2 import PasswordHasher
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from postrail.core.kinds import API_VERSION, GROUP
from tests.support import s3
from tests.support.cluster_place import Place
from tests.support.cluster_zones import Zones
from tests.support.dkim_records import published
from tests.support.kubectl import Kubectl, Manifest, eventually, helm, is_true

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "postrail"
RELEASE = "postrail"
USER = "shop"
SELECTOR = "mail1"
STREAM = "transactional"
INGRESS = f"{RELEASE}-ingress"
OURS = f"app.kubernetes.io/instance={RELEASE}"
KAFKA_PROPERTIES = "auto.create.topics.enable=false\noffsets.retention.minutes=20160\nlog.flush.interval.messages=1"

QUIET_LOOKS = 4
GONE_SECONDS = 400.0
"""Pods that have lost their Kafka take all of their grace period, and the cluster looks at a namespace less and less often."""


def component(name: str) -> str:
    """The selector of a component's pods."""
    return f"{OURS},app.kubernetes.io/component={name}"


def resource(kind: str, name: str, **content: Any) -> Manifest:
    """An object of Kubernetes."""
    labels = content.pop("labels", {})
    version = content.pop("version", "v1")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **content}


def ours(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    """An object of ours."""
    return resource(kind, name, version=API_VERSION, spec=spec)


@dataclass(slots=True)
class Release:
    """One release and its namespaces."""

    place: Place
    zones: Zones
    s3_endpoint: str
    password: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = self.values or default_values(self.place, self.s3_endpoint)

    @property
    def kubectl(self) -> Kubectl:
        """In the release's namespace."""
        return Kubectl(self.place.namespace)

    @property
    def senders(self) -> Kubectl:
        """In the namespace of senders on the host network."""
        return Kubectl(self.place.senders_namespace)

    @property
    def node_label(self) -> str:
        """The label of the node that has the pools' addresses."""
        return f"postrail.io/{self.place.namespace}"

    @property
    def domain(self) -> str:
        """The domain of which mail is submitted."""
        return f"shop.{self.place.zone}"

    def prepare(self) -> None:
        """Namespaces, the S3 server's password, the broker's volume, the node's label. Raises CommandFailed."""
        if (
            self.kubectl.get("customresourcedefinition", f"ippools.{GROUP}") is not None
        ):  # Helm installs, but does not change them
            self.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CHART / "crds"))
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply(resource("Namespace", self.place.namespace, labels=restricted))
        login = {"access-key-id": s3.ACCESS_KEY, "secret-access-key": s3.SECRET_KEY}
        self.kubectl.apply(resource("Secret", "s3", stringData=login))
        if self.place.volumes is not None:
            self.kubectl.apply(broker_volume(self.place, self.place.volumes))
        self.kubectl("label", "node", self.node(), f"{self.node_label}=true", "--overwrite")

    def node(self) -> str:
        """The node that has the pools' addresses."""
        return self.place.node or str(self.kubectl.every("nodes")[0]["metadata"]["name"])

    def install(self, folder: Path, *options: str) -> None:
        """`helm upgrade --install`, and wait until the chart's pods are ready. Raises CommandFailed."""
        file = folder / "values.yaml"
        file.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        self.helm("upgrade", CHART, "--install", "--values", file, "--wait", "--timeout", "15m", *options)

    def helm(self, verb: str, *arguments: str | Path) -> str:
        """`helm VERB` of this release. Raises CommandFailed."""
        return helm(verb, RELEASE, *arguments, "--namespace", self.place.namespace)

    def revision(self) -> int:
        """The number of the revision that is installed. Raises CommandFailed."""
        history: list[dict[str, Any]] = json.loads(self.helm("history", "--output", "json"))
        return int(history[-1]["revision"])

    def publish(self, folder: Path) -> list[Manifest]:
        """A DKIM key and a password as Secrets, and the key in the DNS; the Secrets, to be applied.

        A release that was kept keeps its own, so that its pods need not roll.
        """
        dkim = self.entries("dkim") or {f"{SELECTOR}.pem": new_key()}
        password = self.entries("password")
        self.password = password.get("password") or secrets.token_urlsafe(12)
        password = password or {"password": self.password, "hash": PasswordHasher().hash(self.password)}
        file = folder / "dkim.pem"
        file.write_text(dkim[f"{SELECTOR}.pem"], encoding="ascii")
        self.zones.text(f"{SELECTOR}._domainkey.shop", published(file).decode("ascii"))
        self.zones.text("shop", f"v=spf1 {' '.join(f'ip4:{address}' for address in self.place.pool)} -all")
        self.zones.text("_dmarc.shop", "v=DMARC1; p=reject; psd=n")  # nobody answers for the names above the zone
        for number, address in enumerate(self.place.pool, 1):
            self.zones.host(f"out{number}", address)
        self.zones.write()
        return [resource("Secret", "dkim", stringData=dkim), resource("Secret", "password", stringData=password)]

    def entries(self, secret: str) -> dict[str, str]:
        """What a Secret has; {} where there is none. Raises CommandFailed."""
        data = (self.kubectl.get("secret", secret) or {}).get("data") or {}
        return {key: base64.b64decode(value).decode("ascii") for key, value in data.items()}

    def ip_pool(self, name: str, *addresses: str) -> Manifest:
        """An IPPool whose addresses are bound directly."""
        every = [{"address": address, "ehlo": self.zones.pointers[address]} for address in addresses]
        binding = {"mode": "direct", "nodeSelector": {self.node_label: "true"}}
        return ours("IPPool", name, {"addresses": every, "binding": binding})

    def sender_pool(self, name: str, ip_pool: str, **spec: Any) -> Manifest:
        """A SenderPool of the stream."""
        resources = {"requests": {"cpu": "20m", "memory": "64Mi"}}
        given = {"stream": STREAM, "ipPoolRef": {"name": ip_pool}, "replicas": 1, "resources": resources}
        return ours("SenderPool", name, {**given, **spec})

    def objects(self) -> list[Manifest]:
        """One IPPool of two addresses, one SenderPool, one SendingDomain, one Submitter."""
        keys = [{"selector": SELECTOR, "secretRef": {"name": "dkim", "key": f"{SELECTOR}.pem"}}]
        password = {"name": "password", "key": "hash"}
        return [
            self.ip_pool("main", *self.place.pool[:2]),
            self.sender_pool("transactional", "main"),
            ours("SendingDomain", "shop", {"domain": self.domain, "dkim": {"keys": keys}}),
            ours("Submitter", USER, {"domains": [self.domain], "stream": STREAM, "passwordSecretRef": password}),
        ]

    def ready(self, seconds: float = 300.0) -> None:
        """Wait until the objects say that they are ready, and all pods have read what they say."""
        wanted = [("ippool", "main"), ("senderpool", "transactional"), ("sendingdomain", "shop"), ("submitter", USER)]
        for kind, name in wanted:
            eventually(f"{kind}/{name} is ready", partial(self._is_ready, kind, name), seconds)
        self.settled(seconds)

    def settled(self, seconds: float = 300.0) -> None:
        """Wait until every Deployment runs what it was told last, and stays so: the operator may just be about to change one."""
        quiet = 0

        def still() -> bool:
            nonlocal quiet
            found = [one for kubectl in (self.kubectl, self.senders) for one in kubectl.every("deployments", OURS)]
            quiet = quiet + 1 if all(rolled_out(one) for one in found) else 0
            return quiet >= QUIET_LOOKS

        eventually("every Deployment runs what it was told last", still, seconds, every=1.0)

    def _is_ready(self, kind: str, name: str) -> bool:
        body = self.kubectl.get(kind, name)
        kinds = {one["type"] for one in ((body or {}).get("status") or {}).get("conditions", ())}
        return is_true(body, "Ready" if "Ready" in kinds else "Accepted")

    def remove(self) -> None:
        """Take everything away, the namespaces and the volume too. Raises CommandFailed."""
        self.helm("uninstall", "--ignore-not-found", "--wait")
        eventually("the end of the operator", lambda: not self.kubectl.every("pods", component("operator")), 120.0)
        for kind in ("senderpools", "ippools"):  # nobody is there to say that they may go
            for body in self.kubectl.every(kind):
                self.kubectl.patch(kind, body["metadata"]["name"], {"metadata": {"finalizers": None}})
        namespaces = (self.place.namespace, self.place.senders_namespace)
        for namespace in namespaces:
            self.kubectl.delete("namespace", namespace, "--wait=false")
        for namespace in namespaces:
            eventually(f"the end of namespace {namespace}", partial(self._is_gone, namespace), GONE_SECONDS, every=2.0)
        self.kubectl.delete("persistentvolume", self.place.namespace, "--wait=false")
        if self.place.volumes is not None:
            shutil.rmtree(self.place.volumes, ignore_errors=True)
        self.kubectl("label", "node", self.node(), f"{self.node_label}-")

    def _is_gone(self, namespace: str) -> bool:
        return self.kubectl.get("namespace", namespace) is None


def new_key() -> str:
    """A DKIM key in PEM."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def rolled_out(deployment: Manifest) -> bool:
    """Whether all its pods are of its present template, and ready."""
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    current = status.get("observedGeneration") == deployment["metadata"]["generation"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")}
    return bool(current and counts == {wanted})


def default_values(place: Place, s3_endpoint: str) -> dict[str, Any]:
    """The values of the release: one pod of each service, which asks for little, for a node with two cores."""
    little = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    one = {"replicas": 1, "resources": little}
    repository, tag = place.image.rsplit(":", 1)
    evaluation: dict[str, Any] = {
        "enabled": True,
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
        "persistence": {"enabled": place.volumes is not None, "size": "1Gi", "storageClassName": place.namespace},
    }
    if place.kafka_image:
        properties = {"name": "KAFKA_PROPERTIES", "value": KAFKA_PROPERTIES}
        evaluation |= {"image": place.kafka_image, "command": [], "env": [properties]}
    soon = [10, 60, 300, 900, 3600, 14400]
    return {
        "hostname": f"mail.{place.zone}",
        "config": {
            "delivery": {"retry": {"tiers_seconds": soon, "delays_seconds": soon, "site_backoff_seconds": soon[:5]}},
            "checks": {"block_lists": [{"zone": f"bl.{place.zone}"}]},
        },
        "image": {"repository": repository, "tag": tag},
        "kafka": {"partitions": 4, "evaluation": evaluation},
        "blobs": {
            "store": "s3",
            "s3": {"bucket": s3.BUCKET, "endpoint": s3_endpoint, "credentialsSecret": "s3", "allowHttp": True},
        },
        "ingress": {**one, "tls": {"selfSigned": True}},
        "signing": one,
        "routing": {**one, "groups": ["default"]},
        "scheduler": one,
        "monitoring": {"podMonitors": False, "rules": False},  # their kinds come and go with other tests
        "operator": {**one, "checks": {"intervalSeconds": 5}},
        "senders": {
            "hostNetwork": {"enabled": True, "namespace": place.senders_namespace},
            "resources": little,
            "drainSeconds": 20,
        },
    }


def broker_volume(place: Place, folder: Path) -> Manifest:
    """A volume of the node that only this run's broker claims, so that its mail outlives its pod."""
    data = folder / "kafka"
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o777)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": place.namespace,
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(data)},
    }
    return resource("PersistentVolume", place.namespace, spec=spec)
