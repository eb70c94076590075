"""The API server, spoken to over HTTP: lists, reads, server-side apply, deletion, events.

Owns the connection and its credentials (the pod's service account, or a kubeconfig). Decides nothing. Foreign exceptions become
`ApiError` here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import kopf

from postrail.core.kinds import API_VERSION, KINDS
from postrail_operator.objects import Manifest
from postrail_operator.plan import Ref, ref_of

LOG = logging.getLogger("postrail.operator")
MANAGER = "postrail-operator"
TIMEOUT_SECONDS = 30.0
LOGIN_SECONDS = 60.0
"""A service account's token is replaced while the pod runs, so it is read again."""
PAGE = 500
PLURALS: Mapping[tuple[str, str], str] = {
    ("v1", "Secret"): "secrets",
    ("v1", "Node"): "nodes",
    ("v1", "Pod"): "pods",
    ("v1", "Event"): "events",
    ("apps/v1", "Deployment"): "deployments",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
    ("cilium.io/v2", "CiliumEgressGatewayPolicy"): "ciliumegressgatewaypolicies",
    ("kopf.dev/v1", "KopfPeering"): "kopfpeerings",
    **{(API_VERSION, kind.name): kind.plural for kind in KINDS},
}


class ApiError(Exception):
    """The API server refused, or did not answer; the text says what was asked and why it did not go.

    Attributes:
        status: of HTTP; 0 where there was no answer.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def path_of(api_version: str, kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of an object, or of all of a kind."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    parts = [root, *(("namespaces", namespace) if namespace else ()), PLURALS[api_version, kind]]
    return "/".join([*parts, *filter(None, (name, subresource))])


class Client:
    """A session with the API server; an asynchronous context manager.

    Args:
        connection: where it is and with what one signs in; None: what the surroundings say.
    """

    def __init__(self, connection: kopf.ConnectionInfo | None = None) -> None:
        self._given = connection
        self._session: aiohttp.ClientSession | None = None
        self._connection: kopf.ConnectionInfo | None = None
        self._logged_in_at = 0.0

    async def __aenter__(self) -> Self:
        self._connection = self._given or login()
        self._logged_in_at = time.monotonic()
        connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(_tls, self._connection))
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Manifest | None:
        """An object; None where it does not exist. Raises ApiError."""
        try:
            return await self._ask("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def read(self, ref: Ref) -> Manifest | None:
        """An object; None where it does not exist. Raises ApiError."""
        return await self.get(path_of(*ref))

    async def list_all(self, api_version: str, kind: str, namespace: str = "", selector: str = "") -> list[Manifest]:
        """All objects of a kind, with kind and version; none where the cluster does not know it. Raises ApiError."""
        found: list[Manifest] = []
        parameters = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            try:
                page = await self._ask("GET", path_of(api_version, kind, namespace), parameters=parameters)
            except ApiError as error:
                if error.status == 404:
                    return []
                raise
            found += [{"apiVersion": api_version, "kind": kind, **item} for item in page.get("items", ())]
            following = page.get("metadata", {}).get("continue", "")
            if not following:
                return found
            parameters["continue"] = following

    async def apply(self, manifest: Manifest, subresource: str = "") -> None:
        """Server-side apply: what the manifest says becomes ours, what it no longer says goes. Raises ApiError."""
        ref = ref_of(manifest)
        path = path_of(ref.api_version, ref.kind, ref.namespace, ref.name, subresource)
        parameters = {"fieldManager": MANAGER, "force": "true"}
        await self._ask("PATCH", path, manifest, "application/apply-patch+yaml", parameters)

    async def scale(self, ref: Ref, replicas: int) -> None:
        """Set `spec.replicas` as `kubectl scale` does. Raises ApiError."""
        patch = {"spec": {"replicas": replicas}}
        await self._ask("PATCH", path_of(*ref), patch, "application/merge-patch+json", {"fieldManager": MANAGER})

    async def delete(self, ref: Ref) -> None:
        """Delete an object; one that is gone is well. Raises ApiError."""
        try:
            await self._ask("DELETE", path_of(*ref), {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    async def tell(self, about: Mapping[str, Any], told: tuple[str, str, str], now: str) -> None:
        """An event about an object: its type, reason and message. Raises ApiError."""
        metadata = about["metadata"]
        kind, reason, message = told
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata.get("uid", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._ask("POST", path_of("v1", "Event", metadata["namespace"]), event)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        parameters: Mapping[str, str] | None = None,
    ) -> Manifest:
        assert self._session is not None, "the client is used as a context manager"
        if self._given is None and time.monotonic() - self._logged_in_at > LOGIN_SECONDS:
            self._connection = login()
            self._logged_in_at = time.monotonic()
        assert self._connection is not None
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if self._connection.token:
            headers["Authorization"] = f"Bearer {self._connection.token}"
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.request(method, url, params=parameters, headers=headers, data=data) as answer:
                text = await answer.text()
                if answer.status >= 400:
                    raise ApiError(f"{method} {path}: {answer.status} {_reason(text)}", answer.status)
                return dict(json.loads(text)) if text else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(f"{method} {path}: {str(error) or type(error).__name__}") from error


def _reason(text: str) -> str:
    """What a Status object says; otherwise the beginning of the text."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]


def login() -> kopf.ConnectionInfo:
    """How the surroundings say that one signs in: the pod's service account, otherwise the kubeconfig.

    Raises:
        ApiError: neither is there.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings, logger=LOG)
    found = found or kopf.login_with_kubeconfig(settings=settings, logger=LOG)
    if found is None:
        raise ApiError("no way to sign in to the API server: run it in a pod with a service account, or set KUBECONFIG")
    return found


def _tls(connection: kopf.ConnectionInfo) -> ssl.SSLContext | bool:
    if not connection.server.startswith("https://"):
        return True
    if connection.insecure:
        return False
    context = ssl.create_default_context(cafile=None if connection.ca_path is None else str(connection.ca_path))
    if connection.ca_data:
        context.load_verify_locations(cadata=_pem(connection.ca_data).decode("ascii"))
    if connection.certificate_path and connection.private_key_path:
        context.load_cert_chain(str(connection.certificate_path), str(connection.private_key_path))
    elif connection.certificate_data and connection.private_key_data:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("certificate", "key")]
            for file, data in zip(files, (connection.certificate_data, connection.private_key_data), strict=True):
                file.touch(0o600)
                file.write_bytes(_pem(data))
            context.load_cert_chain(str(files[0]), str(files[1]))
    return context


def _pem(data: str | bytes) -> bytes:
    """PEM, given as it is or in base64."""
    raw = data.encode("ascii") if isinstance(data, str) else data
    return raw if raw.lstrip().startswith(b"-----") else base64.b64decode(raw)


def entries(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """What a Secret holds."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def selector(labels: Mapping[str, str]) -> str:
    """Labels as a selector."""
    return ",".join(f"{key}={value}" for key, value in labels.items())
