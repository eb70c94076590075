"""Objects of our kinds for tests of the operator, as the API server would give them."""

from collections.abc import Mapping
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postrail.core.kinds import API_VERSION, KINDS
from postrail_operator.objects import Manifest, Objects, read_objects
from postrail_operator.settings import Settings

SETTINGS = Settings("mail", "mail-direct", "postrail", prometheus_url="http://prometheus:9090")

BASE: dict[str, Any] = yaml.safe_load(
    """
hostname: mail.example.com
data_directory: /var/lib/postrail
log: {kind: kafka, kafka: {bootstrap_servers: ["kafka:9092"], partitions: 6}}
ingress:
  listeners: [{kind: submission, port: 2587}]
  tls: {certificate_file: /etc/postrail/tls/tls.crt, key_file: /etc/postrail/tls/tls.key}
routing: {groups: [gmail, default]}
health: {address: 0.0.0.0, port: 9464}
"""
)

TEMPLATE: dict[str, Any] = yaml.safe_load(
    """
apiVersion: apps/v1
kind: Deployment
metadata: {labels: {helm.sh/chart: postrail-0.1.0}}
spec:
  template:
    metadata:
      labels: {app.kubernetes.io/name: postrail}
      annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9464"}
    spec:
      containers:
        - name: sender
          image: postrail:0.1.0
          args: [sender, --config, /etc/postrail/config/postrail.yaml]
          ports: [{name: health, containerPort: 9464}]
          env: [{name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: s3, key: access-key-id}}}]
          volumeMounts: [{name: config, mountPath: /etc/postrail/config, readOnly: true}]
      volumes:
        - {name: config, secret: {secretName: postrail-config}}
        - {name: kafka-password, secret: {secretName: kafka}}
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]
"""
)

HASH = b"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"
PEM = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SECRETS = {"dkim": {"s1.pem": PEM}, "shop": {"hash": HASH}}


def body(kind: str, name: str, spec: Mapping[str, Any], *, age: int = 0, **more: Any) -> Manifest:
    """An object; `age`: the larger, the older. `more`: status, annotations, deleting, generation."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "mail",
        "generation": more.get("generation", 1),
        "creationTimestamp": f"2026-11-{22 - age:02d}T10:00:00Z",
        "annotations": more.get("annotations", {}),
    }
    if more.get("deleting"):
        metadata |= {"deletionTimestamp": "2026-11-22T11:00:00Z", "finalizers": ["postrail.io/in-use"]}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata,
        "spec": dict(spec),
        "status": more.get("status", {}),
    }


def ip_pool(name: str, *addresses: str, **more: Any) -> Manifest:
    """An IPPool behind a SOCKS5 proxy, or with the binding given."""
    binding = more.pop("binding", {"mode": "socks5", "proxy": "socks5://egress:1080"})
    sources = [{"address": address, "ehlo": f"out{index}.example.com"} for index, address in enumerate(addresses, 1)]
    return body("IPPool", name, {"addresses": sources, "binding": binding, **more.pop("spec", {})}, **more)


def sender_pool(name: str, stream: str, pool: str, **more: Any) -> Manifest:
    """A SenderPool."""
    return body("SenderPool", name, {"stream": stream, "ipPoolRef": {"name": pool}, **more.pop("spec", {})}, **more)


def sending_domain(name: str, domain: str, **more: Any) -> Manifest:
    """A SendingDomain with the key of SECRETS."""
    keys = [{"selector": "s1", "secretRef": {"name": "dkim", "key": "s1.pem"}}]
    return body("SendingDomain", name, {"domain": domain, "dkim": {"keys": keys}, **more.pop("spec", {})}, **more)


def submitter(name: str, stream: str, **more: Any) -> Manifest:
    """A Submitter with the hash of SECRETS."""
    spec = {"domains": ["example.com"], "stream": stream, "passwordSecretRef": {"name": "shop", "key": "hash"}}
    return body("Submitter", name, {**spec, **more.pop("spec", {})}, **more)


def read(*bodies: Manifest, secrets: Mapping[str, Mapping[str, bytes]] = SECRETS) -> Objects:
    """The objects as the operator reads them."""
    by_kind: dict[str, list[Manifest]] = {kind.name: [] for kind in KINDS}
    for one in bodies:
        by_kind[one["kind"]].append(one)
    return read_objects(by_kind, secrets)
