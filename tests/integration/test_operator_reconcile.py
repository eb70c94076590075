"""The operator's loop against a stand-in for the API server: it converges, then writes nothing, and survives refusals."""

import base64
from collections.abc import AsyncIterator

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from postrail_operator.client import ApiError, Client, path_of
from postrail_operator.handlers import hold_back
from postrail_operator.health import application
from postrail_operator.reconcile import Reconciler
from postrail_operator.settings import Settings
from tests.support.api_server import ApiServer
from tests.support.kubernetes_objects import (
    BASE,
    HASH,
    PEM,
    TEMPLATE,
    body,
    ip_pool,
    sender_pool,
    sending_domain,
    submitter,
)

NOW = "2026-11-22T12:00:00Z"
SETTINGS = Settings("mail", "mail", "postrail")
SECRET_OBJECTS = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "mail"},
        "data": {key: base64.b64encode(value).decode()},
    }
    for name, key, value in (("dkim", "s1.pem", PEM), ("shop", "hash", HASH))
]
INGRESS = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "postrail-ingress",
        "namespace": "mail",
        "generation": 1,
        "labels": {"postrail.io/reads-config": "true", "app.kubernetes.io/component": "ingress"},
    },
    "spec": {"replicas": 1, "template": {"metadata": {}}},
    "status": {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 1},
}
OBJECTS = [
    ip_pool("main", "192.0.2.1"),
    sender_pool("fast", "transactional", "main"),
    sending_domain("example", "example.com"),
    submitter("shop", "transactional"),
    body("Destination", "gmail", {"limits": {"connections": 3}}),
]


class Figures:
    """A stand-in for Prometheus: answers each question about senders with one number for the pool `fast`."""

    def __init__(self) -> None:
        self.values = {"count by": 1.0, "sum by (pool, group) (postrail_sender_eligible_deliveries)": 0.0}

    async def serve(self, request: web.Request) -> web.Response:
        question = request.query["query"]
        value = next((number for part, number in self.values.items() if question.startswith(part)), 0.0)
        metric = {"pool": "fast", "group": "default"}
        answer = {"status": "success", "data": {"result": [{"metric": metric, "value": [0, str(value)]}]}}
        return web.json_response(answer)


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        server.put(*SECRET_OBJECTS, INGRESS)
        yield server


@pytest.fixture
async def figures() -> AsyncIterator[tuple[Figures, str]]:
    found = Figures()
    application_ = web.Application()
    application_.router.add_get("/api/v1/query", found.serve)
    server = TestServer(application_)
    await server.start_server()
    yield found, str(server.make_url("/"))
    await server.close()


@pytest.fixture
async def client(api: ApiServer) -> AsyncIterator[Client]:
    async with Client(kopf.ConnectionInfo(server=api.url, token="secret")) as connected:
        yield connected


def reconciler(client: Client, settings: Settings = SETTINGS) -> Reconciler:
    return Reconciler(client, settings, BASE, TEMPLATE, "me", 5)


def accepted(api: ApiServer, kind: str, name: str) -> tuple[str, str]:
    conditions = api.of_kind(kind)[name]["status"]["conditions"]
    return next((one["status"], one["reason"]) for one in conditions if one["type"] == "Accepted")


async def test_empty_namespace_gets_a_configuration_so_that_services_start(api: ApiServer, client: Client) -> None:
    assert await reconciler(client).look(NOW, 0.0) == 0
    assert api.of_kind("Secret").keys() == {"dkim", "shop", "postrail-config", "postrail-keys"}


async def test_objects_become_configuration_senders_and_statuses(api: ApiServer, client: Client) -> None:
    assert await reconciler(client).look(NOW, 0.0) == 0
    template = api.of_kind("Deployment")["postrail-ingress"]["spec"]["template"]
    assert "annotations" not in template["metadata"], "its pods have waited for the first configuration"
    api.put(*OBJECTS)
    assert await reconciler(client).look(NOW, 1.0) == 0
    assert {
        (kind, accepted(api, kind, name)) for kind, name in ((one["kind"], one["metadata"]["name"]) for one in OBJECTS)
    } == {(one["kind"], ("True", "Accepted")) for one in OBJECTS}
    assert "postrail-sender-fast-others" in api.of_kind("Deployment")
    assert "postrail-sender-fast-others" in api.of_kind("PodDisruptionBudget")
    assert set(api.of_kind("Secret")["postrail-keys"]["data"]) == {"example.com.s1.pem", "submitter.shop.hash"}
    annotations = api.of_kind("Deployment")["postrail-ingress"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations.keys() == {"postrail.io/config"}
    assert {event["reason"] for event in api.events} == {"Accepted"}


async def test_second_look_writes_nothing_also_after_a_restart(api: ApiServer, client: Client) -> None:
    api.put(*OBJECTS)
    first = reconciler(client)
    await first.look(NOW, 0.0)
    await first.look(NOW, 1.0)
    api.requests.clear()
    assert await reconciler(client).look("2026-11-22T13:00:00Z", 2.0) == 0
    assert api.writes == []


async def test_leases_are_written_before_anything_sends_from_them(api: ApiServer, client: Client) -> None:
    api.put(*OBJECTS)
    await reconciler(client).look(NOW, 0.0)
    paths = [path for _, path in api.writes]
    assert paths.index(path_of("postrail.io/v1alpha1", "IPPool", "mail", "main", "status")) < paths.index(
        path_of("apps/v1", "Deployment", "mail", "postrail-sender-fast-others")
    )


async def test_refused_change_is_tried_again(api: ApiServer, client: Client) -> None:
    api.put(*OBJECTS)
    api.refuse["/apis/policy"] = 403
    with pytest.raises(ApiError, match="403 refused by the test"):
        await reconciler(client).look(NOW, 0.0)
    api.refuse = {path_of("policy/v1", "PodDisruptionBudget", "mail", "postrail"): 403}
    assert await reconciler(client).look(NOW, 0.0) == 1
    assert "postrail-sender-fast-others" in api.of_kind("Deployment")
    api.refuse = {}
    assert await reconciler(client).look(NOW, 0.0) == 0
    assert "postrail-sender-fast-others" in api.of_kind("PodDisruptionBudget")


async def test_nodes_that_may_not_be_looked_at_stop_nothing(api: ApiServer, client: Client) -> None:
    api.put(*OBJECTS)
    api.refuse["/api/v1/nodes"] = 403
    assert await reconciler(client).look(NOW, 0.0) == 0


async def test_pool_in_use_is_held_back_until_it_is_not(api: ApiServer, client: Client) -> None:
    deleting = ip_pool("main", "192.0.2.1", deleting=True)
    api.put(deleting, OBJECTS[1])
    found = reconciler(client)
    handler = hold_back("IPPool", found)
    with pytest.raises(kopf.TemporaryError, match="is being looked at"):
        handler(name="main")
    await found.look(NOW, 0.0)
    with pytest.raises(kopf.TemporaryError, match="InUse: SenderPools send from its addresses: fast"):
        handler(name="main")
    del api.objects[path_of("postrail.io/v1alpha1", "SenderPool", "mail", "fast")]
    await found.look(NOW, 1.0)
    handler(name="main")


async def test_sender_pool_waits_for_its_mail(api: ApiServer, client: Client, figures: tuple[Figures, str]) -> None:
    numbers, url = figures
    api.put(OBJECTS[0], sender_pool("fast", "transactional", "main", deleting=True))
    found = reconciler(client, Settings("mail", "mail", "postrail", prometheus_url=url))
    handler = hold_back("SenderPool", found)
    numbers.values |= {"max by (pool) (max_over_time": 4.0, "count_over_time": 1e6}
    await found.look(NOW, 0.0)
    with pytest.raises(kopf.TemporaryError, match="4 deliveries wait"):
        handler(name="fast")
    numbers.values |= {"max by (pool) (max_over_time": 0.0, "count_over_time": 60.0}
    await found.look(NOW, 1.0)
    with pytest.raises(kopf.TemporaryError, match="UnknownQueue"):
        handler(name="fast")
    numbers.values["count_over_time"] = 1e6
    await found.look(NOW, 2.0)
    handler(name="fast")


async def test_pool_is_scaled_by_what_could_be_sent_now(
    api: ApiServer, client: Client, figures: tuple[Figures, str]
) -> None:
    numbers, url = figures
    scaling = {"maxReplicas": 3, "scaleUpStabilisationSeconds": 30, "scaleDownStabilisationSeconds": 60}
    pool = sender_pool("fast", "transactional", "main", spec={"autoscaling": scaling, "replicas": 1})
    api.put(OBJECTS[0], pool)
    found = reconciler(client, Settings("mail", "mail", "postrail", prometheus_url=url))

    def replicas() -> int:
        return int(api.of_kind("SenderPool")["fast"]["spec"]["replicas"])

    numbers.values |= {"avg by": 600.0, "sum by (pool, group) (postrail_sender_eligible_deliveries)": 5000.0}
    await found.look(NOW, 0.0)
    assert replicas() == 1, "not needed for long enough"
    await found.look(NOW, 30.0)
    assert replicas() == 2
    numbers.values |= {"max by (pool, group) (postrail_sender_limits_used_ratio)": 0.95, "count by": 2.0}
    await found.look(NOW, 90.0)
    await found.look(NOW, 121.0)
    assert replicas() == 2, "more would send nothing more"
    numbers.values |= {"avg by": 0.0, "sum by (pool, group) (postrail_sender_eligible_deliveries)": 0.0}
    await found.look(NOW, 150.0)
    assert replicas() == 2
    await found.look(NOW, 211.0)
    assert replicas() == 1


async def test_prometheus_that_does_not_answer_leaves_everything_as_it_is(api: ApiServer, client: Client) -> None:
    pool = sender_pool("fast", "transactional", "main", spec={"autoscaling": {"minReplicas": 1}, "replicas": 2})
    api.put(OBJECTS[0], pool)
    found = reconciler(client, Settings("mail", "mail", "postrail", prometheus_url="http://127.0.0.1:9/"))
    assert await found.look(NOW, 0.0) == 0
    conditions = api.of_kind("SenderPool")["fast"]["status"]["conditions"]
    assert ("Unknown", "NoMetrics") in {(one["status"], one["reason"]) for one in conditions if one["type"] == "Scaled"}


async def test_senders_without_a_pool_are_deleted(api: ApiServer, client: Client) -> None:
    api.put(*OBJECTS)
    await reconciler(client).look(NOW, 0.0)
    del api.objects[path_of("postrail.io/v1alpha1", "SenderPool", "mail", "fast")]
    await reconciler(client).look(NOW, 1.0)
    assert api.of_kind("Deployment").keys() == {"postrail-ingress"}
    assert accepted(api, "Submitter", "shop") == ("False", "StreamMissing")


async def test_health_follows_the_looks(client: Client) -> None:
    found = reconciler(client)
    async with TestClient(TestServer(application(found))) as http:
        assert (await http.get("/readyz")).status == 503
        assert (await http.get("/livez")).status == 200
        found.looked_at = 1e-6
        assert (await http.get("/readyz")).status == 200
        text = await (await http.get("/metrics")).text()
        assert "postrail_operator_problems" in text


async def test_client_names_what_it_asked_when_nobody_answers() -> None:
    async with Client(kopf.ConnectionInfo(server="http://127.0.0.1:9")) as lonely:
        with pytest.raises(ApiError, match=r"GET /api/v1/nodes: "):
            await lonely.list_all("v1", "Node")
