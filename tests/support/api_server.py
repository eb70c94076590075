"""A small stand-in for the API server of Kubernetes, on loopback: keeps objects, merges what is applied, watches, finalizers.

Not the real thing: no schemas, no admission, no field ownership. Tests of the operator's shell use it; that the API server itself
takes what we write is tested on a cluster.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from postrail_operator.client import PLURALS, path_of
from postrail_operator.objects import Manifest
from postrail_operator.plan import ref_of

KNOWN = {
    **PLURALS,
    ("v1", "Pod"): "pods",
    ("v1", "Namespace"): "namespaces",
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): "customresourcedefinitions",
}
KINDS_BY_PLURAL = {plural: key for key, plural in KNOWN.items()}


def _path(manifest: Manifest) -> str:
    """Where an object is."""
    ref = ref_of(manifest)
    if (ref.api_version, ref.kind) in PLURALS:
        return path_of(*ref)
    return f"/api/{ref.api_version}/namespaces/{ref.namespace}/{KNOWN[ref.api_version, ref.kind]}/{ref.name}"


class ApiServer:
    """Serves objects; an asynchronous context manager."""

    def __init__(self) -> None:
        self.objects: dict[str, Manifest] = {}
        self.requests: list[tuple[str, str]] = []
        self.events: list[Manifest] = []
        self.refuse: dict[str, int] = {}
        """By the beginning of a path, the status with which it is refused."""
        self.in_between: list[Manifest] = []
        """What somebody else changes just before the next patch comes."""
        self._version = 0
        self._watchers: list[tuple[str, asyncio.Queue[Manifest]]] = []
        self._history: list[tuple[int, str, Manifest]] = []
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._server = TestServer(application)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_why: object) -> None:
        for _place, queue in self._watchers:
            queue.put_nowait({})
        await self._server.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._server.make_url("/"))

    def put(self, *manifests: Manifest) -> None:
        """Have these objects."""
        for manifest in manifests:
            path = _path(manifest)
            new = path not in self.objects
            self.objects[path] = copy.deepcopy(manifest)
            self._changed(path, "ADDED" if new else "MODIFIED")

    def remove(self, manifest: Manifest) -> None:
        """Delete an object as a person does: it stays, marked, while it has finalizers."""
        self._delete(_path(manifest))

    def of_kind(self, kind: str) -> dict[str, Manifest]:
        """The objects of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self.objects.values() if one["kind"] == kind}

    @property
    def writes(self) -> list[tuple[str, str]]:
        """What was asked but reading, as method and path."""
        return [request for request in self.requests if request[0] != "GET"]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((request.method, path))
        for beginning, status in self.refuse.items():
            if path.startswith(beginning):
                return web.json_response({"message": "refused by the test"}, status=status)
        body = await request.json() if request.can_read_body else {}
        if request.method == "GET" and request.query.get("watch") == "true":
            return await self._watch(request, path)
        if request.method == "GET":
            return self._get(path, request.query.get("labelSelector", ""))
        if request.method == "POST":
            self.events.append(body)
            return web.json_response(body, status=201)
        if request.method == "DELETE":
            return web.json_response({}, status=200 if self._delete(path) else 404)
        self.put(*self.in_between)
        self.in_between.clear()
        if self._is_late(path, body):
            return web.json_response(
                {"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409}, status=409
            )
        return self._patch(path, body, create="apply-patch" in request.content_type)

    def _is_late(self, path: str, body: Any) -> bool:
        """Whether a patch was made for another version of the object."""
        wanted = body.get("metadata", {}).get("resourceVersion") if isinstance(body, dict) else None
        return bool(wanted) and path in self.objects and wanted != self.objects[path]["metadata"]["resourceVersion"]

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        queue: asyncio.Queue[Manifest] = asyncio.Queue()
        since = int(request.query.get("resourceVersion") or 0)
        for version, place, event in self._history:
            if version > since and place.rpartition("/")[0] == path:
                queue.put_nowait(event)
        self._watchers.append((path, queue))
        while event := await queue.get():
            await answer.write(json.dumps(event).encode() + b"\n")
        return answer

    def _changed(self, path: str, what: str) -> None:
        self._version += 1
        self.objects[path]["metadata"]["resourceVersion"] = str(self._version)
        event = {"type": what, "object": copy.deepcopy(self.objects[path])}
        self._history.append((self._version, path, event))
        for watched, queue in self._watchers:
            if path.rpartition("/")[0] == watched:
                queue.put_nowait(event)

    def _delete(self, path: str) -> bool:
        if path not in self.objects:
            return False
        metadata = self.objects[path]["metadata"]
        if metadata.get("finalizers"):
            metadata.setdefault("deletionTimestamp", "2026-11-22T12:00:00Z")
            self._changed(path, "MODIFIED")
        else:
            self._changed(path, "DELETED")
            del self.objects[path]
        return True

    def _get(self, path: str, selector: str) -> web.Response:
        if path in self.objects:
            return web.json_response(self.objects[path])
        if (found := _discovery(path)) is not None:
            return web.json_response(found)
        if path.rpartition("/")[2] not in KINDS_BY_PLURAL:
            return web.json_response({"message": f"{path} not found"}, status=404)
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        items = [
            manifest
            for place, manifest in self.objects.items()
            if place.rpartition("/")[0] == path and wanted.items() <= manifest["metadata"].get("labels", {}).items()
        ]
        version, kind = KINDS_BY_PLURAL[path.rpartition("/")[2]]
        about = {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": str(self._version)}}
        return web.json_response({**about, "items": items})

    def _patch(self, path: str, body: Any, *, create: bool) -> web.Response:
        whole, _, last = path.rpartition("/")
        if last == "status":
            path, body = whole, {"status": body.get("status", {})}
        if path not in self.objects:
            if not create or last == "status":
                return web.json_response({"message": "not found"}, status=404)
            self.objects[path] = json.loads(json.dumps(body))
            self._changed(path, "ADDED")
        elif create and last == "status":
            self.objects[path]["status"] = body["status"]
            self._changed(path, "MODIFIED")
        elif isinstance(body, list):
            if not _operate(self.objects[path], body):
                return web.json_response({"message": "a test of the patch failed"}, status=422)
            self._changed(path, "MODIFIED")
        else:
            _merge(self.objects[path], body)
            self._changed(path, "MODIFIED")
        patched = self.objects[path]
        if patched["metadata"].get("deletionTimestamp") and not patched["metadata"].get("finalizers"):
            self._delete(path)
        return web.json_response(patched)


def _merge(into: dict[str, Any], given: Mapping[str, Any]) -> None:
    """As RFC 7396, but that what is applied to a Secret replaces its data."""
    for key, value in given.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(into.get(key), dict) and key != "data":
            _merge(into[key], value)
        else:
            into[key] = value


def _operate(manifest: Manifest, operations: list[Manifest]) -> bool:
    """JSON Patch (RFC 6902), as far as kopf uses it; whether all its tests held."""
    for operation in operations:
        *steps, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        place: Any = manifest
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if isinstance(place, list):
            index = len(place) if last == "-" else int(last)
            if operation["op"] == "test" and place[index : index + 1] != [operation.get("value")]:
                return False
            if operation["op"] in {"remove", "replace"}:
                del place[index]
            if operation["op"] in {"add", "replace"}:
                place.insert(index, operation["value"])
        elif operation["op"] == "test" and place.get(last) != operation.get("value"):
            return False
        elif operation["op"] == "remove":
            place.pop(last, None)
        elif operation["op"] in {"add", "replace"}:
            place[last] = operation["value"]
    return True


def _discovery(path: str) -> Manifest | None:
    """What the API server says of itself; KEDA and Cilium it has not."""
    versions = {version for version, _ in KNOWN if not version.startswith(("keda", "cilium"))}
    groups = {version.partition("/")[0]: version.partition("/")[2] for version in versions if "/" in version}
    if path in {"/version", "/api"}:
        return {"major": "1", "minor": "34", "versions": ["v1"]}
    if path == "/apis":
        listed = [{"groupVersion": f"{name}/{version}", "version": version} for name, version in groups.items()]
        named = zip(groups, listed, strict=True)
        return {
            "kind": "APIGroupList",
            "groups": [{"name": name, "versions": [one], "preferredVersion": one} for name, one in named],
        }
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in versions:
        return None
    resources: list[Manifest] = []
    for (of, kind), plural in KNOWN.items():
        if of == version:
            verbs = ["get", "list", "watch", "patch", "create", "delete"]
            about = {"kind": kind, "singularName": kind.lower(), "namespaced": kind != "Node", "verbs": verbs}
            resources.append({"name": plural, **about})
            if version.startswith("postrail"):
                resources.append({"name": f"{plural}/status", **about})
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
