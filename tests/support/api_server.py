"""A small stand-in for the API server of Kubernetes, on loopback: keeps objects, merges what is applied, remembers requests.

Not the real thing: no schemas, no admission, no field ownership. Tests of the operator's shell use it; that the API server itself
takes what we write is tested on a cluster.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from postrail_operator.client import PLURALS, path_of
from postrail_operator.objects import Manifest
from postrail_operator.plan import ref_of

KINDS_BY_PLURAL = {plural: key for key, plural in PLURALS.items()}


class ApiServer:
    """Serves objects; an asynchronous context manager."""

    def __init__(self) -> None:
        self.objects: dict[str, Manifest] = {}
        self.requests: list[tuple[str, str]] = []
        self.events: list[Manifest] = []
        self.refuse: dict[str, int] = {}
        """By the beginning of a path, the status with which it is refused."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._server = TestServer(application)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._server.make_url("/"))

    def put(self, *manifests: Manifest) -> None:
        """Have these objects."""
        for manifest in manifests:
            self.objects[path_of(*ref_of(manifest))] = copy.deepcopy(manifest)

    def of_kind(self, kind: str) -> dict[str, Manifest]:
        """The objects of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self.objects.values() if one["kind"] == kind}

    @property
    def writes(self) -> list[tuple[str, str]]:
        """What was asked but reading, as method and path."""
        return [request for request in self.requests if request[0] != "GET"]

    async def _serve(self, request: web.Request) -> web.Response:
        path = request.path
        self.requests.append((request.method, path))
        for beginning, status in self.refuse.items():
            if path.startswith(beginning):
                return web.json_response({"message": "refused by the test"}, status=status)
        body = await request.json() if request.can_read_body else {}
        if request.method == "GET":
            return self._get(path, request.query.get("labelSelector", ""))
        if request.method == "POST":
            self.events.append(body)
            return web.json_response(body, status=201)
        if request.method == "DELETE":
            gone = self.objects.pop(path, None)
            return web.json_response({}, status=404 if gone is None else 200)
        return self._patch(path, body)

    def _get(self, path: str, selector: str) -> web.Response:
        if path in self.objects:
            return web.json_response(self.objects[path])
        if path.rpartition("/")[2] not in KINDS_BY_PLURAL:
            return web.json_response({"message": f"{path} not found"}, status=404)
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        items = [
            manifest
            for place, manifest in self.objects.items()
            if place.rpartition("/")[0] == path and wanted.items() <= manifest["metadata"].get("labels", {}).items()
        ]
        return web.json_response({"items": items, "metadata": {}})

    def _patch(self, path: str, body: Mapping[str, Any]) -> web.Response:
        whole, _, last = path.rpartition("/")
        if last == "status":
            if whole not in self.objects:
                return web.json_response({"message": "not found"}, status=404)
            self.objects[whole]["status"] = body["status"]
            return web.json_response(self.objects[whole])
        if path in self.objects:
            _merge(self.objects[path], body)
        else:
            self.objects[path] = json.loads(json.dumps(body))
        return web.json_response(self.objects[path])


def _merge(into: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict) and key != "data":
            _merge(into[key], value)
        else:
            into[key] = value
