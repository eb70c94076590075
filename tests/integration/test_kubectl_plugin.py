"""`kubectl postrail` through a real kubectl: what it changes, and what it says when it cannot.

The API server is a small stand-in; commands in pods are tested on a cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from postrail.core.annotations import QUARANTINE, WEIGHTS
from postrail_operator.objects import Manifest
from tests.support.api_server import ApiServer
from tests.support.kubernetes_objects import body, ip_pool, sender_pool
from tests.support.tools import require_tool

PLUGIN = Path(sys.executable).with_name("kubectl-postrail")
ONE, TWO = "192.0.2.1", "192.0.2.2"


@dataclass
class Plugin:
    """The plugin, as a person runs it."""

    server: ApiServer
    kubeconfig: Path
    kubectl: str

    async def __call__(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """`kubectl postrail ARGUMENTS`: exit status, standard output, standard error."""
        environment = {**os.environ, "KUBECONFIG": given or str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}
        environment["PATH"] = f"{PLUGIN.parent}:{Path(self.kubectl).parent}:{environment['PATH']}"
        process = await asyncio.create_subprocess_exec(
            self.kubectl, "postrail", *arguments, stdout=-1, stderr=-1, env=environment
        )
        output, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    def object(self, kind: str, name: str) -> Manifest:
        """As the server has it."""
        return self.server.of_kind(kind)[name]


@asynccontextmanager
async def plugin(path: Path, *objects: Manifest) -> AsyncIterator[Plugin]:
    kubectl = require_tool("kubectl", "speaks to the API server for kubectl-postrail")
    async with ApiServer() as server:
        server.put(*objects)
        file = path / "kubeconfig"
        cluster = {"name": "here", "cluster": {"server": server.url}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "mail"}}
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "contexts": [context],
                    "users": [{"name": "me", "user": {}}],
                    "current-context": "here",
                }
            )
        )
        yield Plugin(server, file, kubectl)


async def test_a_sender_pool_is_suspended_and_resumed(tmp_path: Path) -> None:
    async with plugin(tmp_path, sender_pool("bulk", "marketing", "main")) as run:
        status, said, _ = await run("suspend", "senderpool/bulk")
        assert status == 0
        assert "senderpool/bulk is suspended" in said
        assert "kubectl postrail resume senderpool/bulk" in said
        assert run.object("SenderPool", "bulk")["spec"]["suspend"] is True
        status, said, _ = await run("suspend", "sp/bulk", "--json")
        assert (status, json.loads(said)["changed"]) == (0, False)
        assert (await run("resume", "sp/bulk"))[0] == 0
        assert run.object("SenderPool", "bulk")["spec"]["suspend"] is False


async def test_a_destination_is_suspended_beside_its_other_limits(tmp_path: Path) -> None:
    gmail = body("Destination", "gmail", {"limits": {"connections": 2}})
    async with plugin(tmp_path, gmail, body("Destination", "default", {})) as run:
        assert (await run("suspend", "destination/gmail"))[0] == 0
        assert run.object("Destination", "gmail")["spec"]["limits"] == {"connections": 2, "suspend": True}
        assert (await run("resume", "dest/gmail"))[0] == 0
        assert run.object("Destination", "gmail")["spec"]["limits"] == {"connections": 2}
        _, _, noted = await run("suspend", "destination/default")
        assert "default stands for every site" in noted


async def test_an_address_is_drained_and_gets_its_weight_back(tmp_path: Path) -> None:
    pool = ip_pool("main", ONE, TWO)
    pool["spec"]["addresses"][0]["weight"] = 30
    async with plugin(tmp_path, pool) as run:
        status, said, noted = await run("drain", ONE)
        assert (status, noted) == (0, "")
        assert said.startswith(f"{ONE} (ippool/main) gets no new mail")
        assert [entry.get("weight") for entry in run.object("IPPool", "main")["spec"]["addresses"]] == [0, None]
        _, _, noted = await run("drain", TWO)
        assert "no address of the IPPool main gets new mail any more" in noted
        assert run.object("IPPool", "main")["metadata"]["annotations"][WEIGHTS] == f"{ONE}=30,{TWO}=100"
        assert (await run("resume", "ippool/main"))[0] == 0
        assert [entry["weight"] for entry in run.object("IPPool", "main")["spec"]["addresses"]] == [30, 100]
        assert run.object("IPPool", "main")["metadata"]["annotations"] == {}


async def test_addresses_go_into_quarantine_and_come_out(tmp_path: Path) -> None:
    async with plugin(tmp_path, ip_pool("main", ONE, TWO), ip_pool("other", "192.0.2.3")) as run:
        assert (await run("quarantine", ONE, "192.0.2.3"))[0] == 0
        assert run.object("IPPool", "main")["metadata"]["annotations"][QUARANTINE] == ONE
        assert run.object("IPPool", "other")["metadata"]["annotations"][QUARANTINE] == "192.0.2.3"
        assert (await run("quarantine", "ippool/main"))[0] == 0
        assert run.object("IPPool", "main")["metadata"]["annotations"][QUARANTINE] == "*"
        assert (await run("release", TWO))[0] == 0
        assert run.object("IPPool", "main")["metadata"]["annotations"][QUARANTINE] == ONE
        assert (await run("release", "ippool/main"))[0] == 0
        assert run.object("IPPool", "main")["metadata"]["annotations"] == {}


async def test_a_change_that_somebody_else_met_is_made_again(tmp_path: Path) -> None:
    async with plugin(tmp_path, ip_pool("main", ONE, TWO)) as run:
        run.server.in_between.append(ip_pool("main", ONE, TWO, annotations={QUARANTINE: TWO}))
        assert (await run("quarantine", ONE))[0] == 0
        assert run.object("IPPool", "main")["metadata"]["annotations"][QUARANTINE] == f"{TWO},{ONE}"
        assert [method for method, _ in run.server.writes] == ["PATCH", "PATCH"]


async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    async with plugin(tmp_path, sender_pool("bulk", "marketing", "main")) as run:
        status, _, said = await run("suspend", "senderpool/bukl", "-n", "mail")
        assert status == 1
        assert "bukl" in said
        assert "looked in the namespace mail" in said
        status, _, said = await run("quarantine", ONE)
        assert status == 1
        assert f"no IPPool in the present namespace (choose with --namespace) has the address {ONE}" in said
        status, _, said = await run("queue")
        assert status == 69
        assert "no pod of Postrail runs" in said
        run.server.refuse["/apis/postrail.io/v1alpha1/namespaces/mail/senderpools"] = 403
        status, _, said = await run("suspend", "senderpool/bulk")
        assert status == 77
        assert "not allowed" in said
        assert (await run("suspend", "bulk"))[0] == 64
        assert (await run("suspend", "sp/bulk", "--context", "elsewhere"))[0] == 78


async def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with plugin(tmp_path) as run:
        file = tmp_path / "gone"
        file.write_text(run.kubeconfig.read_text().replace(run.server.url, "http://127.0.0.1:1/"))
        status, _, said = await run("trace", "x", given=str(file))
        assert status == 69
        assert "no cluster answers" in said


@pytest.mark.parametrize("command", ["trace", "queue", "explain"])
async def test_no_running_pod_is_told_with_the_state_of_those_that_do_not_run(tmp_path: Path, command: str) -> None:
    labels = {"app.kubernetes.io/name": "postrail", "app.kubernetes.io/component": "routing"}
    pending = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mail-routing-1", "namespace": "mail", "labels": labels},
        "spec": {"containers": [{"name": "routing"}]},
        "status": {"phase": "Pending"},
    }
    async with plugin(tmp_path, pending) as run:
        status, _, said = await run(command, "x@example.com")
        assert status == 69
        assert "mail-routing-1 is Pending" in said
