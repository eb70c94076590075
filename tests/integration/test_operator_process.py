"""The operator as a process, kopf and all, against a stand-in for the API server: changes, finalizers, two replicas, restarts."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api_server import ApiServer
from tests.support.kubernetes_objects import BASE, TEMPLATE, ip_pool, sender_pool
from tests.support.processes import free_port

PEERING = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "postrail", "namespace": "mail"}}


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        server.put(PEERING)
        yield server


@asynccontextmanager
async def operator(api: ApiServer, folder: Path, name: str = "one") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run it until the end of the block; SIGTERM must end it well, where the block did not kill it."""
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    (folder / "sender.yaml").write_text(yaml.safe_dump(TEMPLATE), encoding="utf-8")
    cluster = {"name": "c", "cluster": {"server": api.url.rstrip("/")}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "secret"}}]
    config = {"current-context": "c", "clusters": [cluster], "contexts": [context], "users": users}
    (folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {
        **os.environ,
        "KUBECONFIG": str(folder / "kubeconfig"),
        "HOSTNAME": name,
        "POSTRAIL_NAMESPACE": "mail",
        "POSTRAIL_RELEASE": "postrail",
        "POSTRAIL_BASE_FILE": str(folder / "base.yaml"),
        "POSTRAIL_TEMPLATES_DIR": str(folder),
        "POSTRAIL_PORT": str(free_port()),
    }
    with (folder / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postrail_operator"), env=environment, stdout=log, stderr=log
        )
    try:
        yield process
        if process.returncode is not None:
            return
        process.terminate()
        status = await asyncio.wait_for(process.wait(), 30)
        assert status == 0, (folder / f"{name}.log").read_text(encoding="utf-8")[-4000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(true: Callable[[], Any], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def status(api: ApiServer, kind: str, name: str, condition: str) -> str:
    found = api.of_kind(kind).get(name, {}).get("status", {}).get("conditions", ())
    return next((one["reason"] for one in found if one["type"] == condition), "")


def live_peers(api: ApiServer) -> list[str]:
    return list(api.of_kind("KopfPeering")["postrail"].get("status", {}))


async def test_pool_in_use_is_deleted_when_its_senders_are_gone(api: ApiServer, tmp_path: Path) -> None:
    pool, senders = ip_pool("main", "192.0.2.1"), sender_pool("fast", "s", "main")
    api.put(pool, senders)
    async with operator(api, tmp_path):
        await until(lambda: status(api, "IPPool", "main", "Accepted") == "Accepted")
        await until(lambda: api.of_kind("IPPool")["main"]["metadata"].get("finalizers") == ["postrail.io/in-use"])
        await until(lambda: api.of_kind("SenderPool")["fast"]["metadata"].get("finalizers"))
        api.remove(pool)
        await until(lambda: status(api, "IPPool", "main", "Released") == "InUse")
        assert "main" in api.of_kind("IPPool")
        api.of_kind("SenderPool")["fast"]["metadata"]["annotations"]["postrail.io/abandon-queue"] = "true"
        api.remove(senders)
        await until(lambda: not api.of_kind("SenderPool"))
        await until(lambda: not api.of_kind("IPPool"))


async def test_change_is_acted_on_at_once_and_nothing_is_written_without_one(api: ApiServer, tmp_path: Path) -> None:
    api.put(ip_pool("main", "192.0.2.1"), sender_pool("fast", "s", "main"))
    async with operator(api, tmp_path):
        await until(lambda: "postrail-sender-fast-others" in api.of_kind("Deployment"))
        await until(lambda: api.of_kind("SenderPool")["fast"]["metadata"].get("finalizers"))
        changed = api.of_kind("SenderPool")["fast"]
        api.put({**changed, "spec": {**changed["spec"], "replicas": 3}})
        await until(lambda: api.of_kind("Deployment")["postrail-sender-fast-others"]["spec"]["replicas"] == 3, 10)
        await asyncio.sleep(2)
        api.requests.clear()
        await asyncio.sleep(2)
        assert [path for _, path in api.writes if "kopfpeerings" not in path] == []


async def test_of_two_replicas_one_acts_and_the_other_takes_over(api: ApiServer, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with operator(api, tmp_path, "a"):
            await until(lambda: len(live_peers(api)) == 1)
            await stack.enter_async_context(operator(api, tmp_path, "b"))
            await until(lambda: len(live_peers(api)) == 2)
            api.put(ip_pool("main", "192.0.2.1"), sender_pool("fast", "s", "main"))
            await until(lambda: status(api, "SenderPool", "fast", "Accepted") == "Accepted")
        await until(lambda: len(live_peers(api)) == 1)
        api.put(ip_pool("other", "192.0.2.2"))
        await until(lambda: status(api, "IPPool", "other", "Accepted") == "Accepted")


@pytest.mark.slow  # the dead operator's place in the peering is kept for 30 s
async def test_operator_that_was_killed_goes_on_where_it_was(api: ApiServer, tmp_path: Path) -> None:
    pool = ip_pool("main", "192.0.2.1")
    api.put(pool, sender_pool("fast", "s", "main"))
    async with operator(api, tmp_path, "a") as process:
        await until(lambda: api.of_kind("IPPool")["main"]["metadata"].get("finalizers"))
        await until(lambda: "postrail-sender-fast-others" in api.of_kind("Deployment"))
        process.kill()
        await process.wait()
    api.remove(pool)
    before = api.of_kind("Deployment")["postrail-sender-fast-others"]["metadata"]["resourceVersion"]
    async with operator(api, tmp_path, "b"):
        await until(lambda: status(api, "IPPool", "main", "Released") == "InUse", 60)
    assert api.of_kind("Deployment")["postrail-sender-fast-others"]["metadata"]["resourceVersion"] == before
