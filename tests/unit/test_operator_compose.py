"""What objects make of the base configuration, and what is said about those that cannot be used."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from postrail.core.conditions import Reason
from postrail.core.config import Config
from postrail_operator.compose import Composition, compose
from postrail_operator.render import config_file
from tests.support.kubernetes_objects import (
    BASE,
    HASH,
    PEM,
    body,
    ip_pool,
    read,
    sender_pool,
    sending_domain,
    submitter,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "operator"
WHOLE = (
    ip_pool("main", "192.0.2.1", "2001:db8::1"),
    ip_pool("bulk", "192.0.2.2", "192.0.2.3", annotations={"postrail.io/quarantine": "192.0.2.3"}),
    sender_pool("transactional", "transactional", "main", spec={"lane": "urgent", "lifetimeSeconds": 86400}),
    sender_pool("marketing", "marketing", "bulk", spec={"destinations": ["yahoo"]}),
    body("Destination", "gmail", {"limits": {"connections": 3}}),
    body(
        "Destination",
        "acme",
        {"mxSuffixes": ["mx.acme.example"], "group": "partners", "limits": {"messagesPerSecond": 2}},
    ),
    body("Destination", "default", {"limits": {"connections": 8, "sources": {"192.0.2.1": {"connections": 2}}}}),
    sending_domain("example", "example.com"),
    submitter("shop", "transactional", spec={"streams": ["marketing"], "username": "shop@example.com"}),
)


def made(*bodies: Any, base: dict[str, Any] | None = None, **secrets: Any) -> Composition:
    return compose(BASE if base is None else base, read(*bodies, **secrets))


def reason(composition: Composition, kind: str, name: str) -> Reason | None:
    fault = composition.faults.get((kind, name))
    return None if fault is None else fault.reason


def config(composition: Composition) -> dict[str, Any]:
    assert composition.config is not None, composition.problem
    return composition.config


def test_whole_configuration_is_as_expected(update_golden: bool) -> None:
    text = config_file(config(made(*WHOLE))).decode()
    golden = GOLDEN / "postrail.yaml"
    if update_golden:
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text
    assert isinstance(Config.model_validate(yaml.safe_load(text)), Config)


def test_whole_configuration_has_no_faults_and_all_files() -> None:
    composition = made(*WHOLE)
    assert composition.faults == {}
    assert composition.files == {"example.com.s1.pem": PEM, "submitter.shop.hash": HASH}


def test_order_of_the_objects_does_not_matter() -> None:
    assert config_file(config(made(*WHOLE))) == config_file(config(made(*reversed(WHOLE))))


def test_base_stays_as_it_is() -> None:
    before = yaml.safe_dump(BASE)
    made(*WHOLE)
    assert yaml.safe_dump(BASE) == before


def test_no_objects_make_a_configuration_in_which_nothing_can_leave() -> None:
    composition = made()
    assert config(composition)["pools"] == {"default": {"sources": []}}
    assert config(composition)["streams"] == {}


def test_trusted_listener_waits_for_its_submitter() -> None:
    listener = {"kind": "trusted", "port": 2525, "networks": ["10.0.0.0/8"], "submitter": "shop"}
    base = {**BASE, "ingress": {**BASE["ingress"], "listeners": [*BASE["ingress"]["listeners"], listener]}}
    composition = made(base=base)
    assert config(composition)["ingress"]["listeners"] == BASE["ingress"]["listeners"]
    assert composition.notes == ["the listener on port 2525 is left out: there is no Submitter shop"]
    both = made(*WHOLE, submitter("trusted", "marketing", spec={"username": "shop"}), base=base)
    assert listener in config(both)["ingress"]["listeners"]


def test_address_in_two_pools_is_said_at_the_second_and_names_the_first() -> None:
    composition = made(
        ip_pool("first", "192.0.2.1", age=2),
        ip_pool("second", "192.0.2.1", "192.0.2.2", age=1),
        sender_pool("a", "a", "first"),
        sender_pool("b", "b", "second"),
    )
    fault = composition.faults["IPPool", "second"]
    assert fault.reason is Reason.ADDRESS_TAKEN
    assert "the IPPool first has 192.0.2.1" in fault.message
    assert ("IPPool", "first") not in composition.faults
    sources = {name: [one["address"] for one in pool["sources"]] for name, pool in config(composition)["pools"].items()}
    assert sources == {"a": ["192.0.2.1"], "b": ["192.0.2.2"], "default": []}


@pytest.mark.parametrize(
    ("bodies", "kind", "name", "expected", "words"),
    [
        ((sender_pool("a", "s", "none"),), "SenderPool", "a", Reason.IP_POOL_MISSING, "there is no IPPool none"),
        (
            (ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i", age=1), sender_pool("b", "t", "i")),
            "SenderPool",
            "b",
            Reason.POOL_TAKEN,
            "the SenderPool a has the IPPool i",
        ),
        (
            (sender_pool("a", "s", "i", age=1), sender_pool("b", "s", "j")),
            "SenderPool",
            "b",
            Reason.STREAM_TAKEN,
            "the SenderPool a has the stream s",
        ),
        (
            (ip_pool("i", "192.0.2.1", annotations={"postrail.io/quarantine": "*"}), sender_pool("a", "s", "i")),
            "SenderPool",
            "a",
            Reason.NO_ADDRESS,
            "no address of the IPPool i can be used",
        ),
        (
            (
                ip_pool("i", "192.0.2.1", binding={"mode": "egressGateway", "gateway": {"nodeSelector": {"a": "b"}}}),
                sender_pool("a", "s", "i"),
            ),
            "SenderPool",
            "a",
            Reason.NO_GATEWAY,
            "enable Cilium's egress gateway",
        ),
        ((body("Destination", "acme", {}),), "Destination", "acme", Reason.COVERS_NOTHING, "say what it covers"),
        (
            (sending_domain("a", "example.com", age=1), sending_domain("b", "example.com")),
            "SendingDomain",
            "b",
            Reason.NAME_TAKEN,
            "the SendingDomain a has the domain example.com",
        ),
        (
            (submitter("a", "nothing"),),
            "Submitter",
            "a",
            Reason.STREAM_MISSING,
            "no SenderPool sends the stream nothing",
        ),
        ((body("Submitter", "a", {"domains": []}),), "Submitter", "a", Reason.INVALID_SPEC, "spec.domains"),
    ],
)
def test_fault_names_what_is_wrong(bodies: Any, kind: str, name: str, expected: Reason, words: str) -> None:
    composition = made(*bodies)
    assert config(composition)
    assert reason(composition, kind, name) is expected
    assert words in composition.faults[kind, name].message


@pytest.mark.parametrize(
    ("secrets", "expected", "words"),
    [
        ({}, Reason.SECRET_MISSING, "there is no Secret dkim"),
        ({"dkim": {"other": PEM}}, Reason.SECRET_MISSING, "the Secret dkim has no entry s1.pem; it has: other"),
        ({"dkim": {"s1.pem": b"x"}}, Reason.SECRET_INVALID, "no private key in PEM"),
    ],
)
def test_domain_without_a_usable_key_does_not_sign(secrets: Any, expected: Reason, words: str) -> None:
    composition = made(sending_domain("a", "example.com"), secrets=secrets)
    assert reason(composition, "SendingDomain", "a") is expected
    assert words in composition.faults["SendingDomain", "a"].message
    assert config(composition)["signing"]["domains"] == {}


@pytest.mark.parametrize(
    ("secrets", "expected"),
    [({}, Reason.SECRET_MISSING), ({"shop": {"hash": b"password"}}, Reason.SECRET_INVALID)],
)
def test_submitter_without_a_usable_hash_is_left_out(secrets: Any, expected: Reason) -> None:
    pools = (ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i"))
    composition = made(*pools, submitter("shop", "s"), secrets=secrets)
    assert reason(composition, "Submitter", "shop") is expected
    assert "password" not in composition.faults["Submitter", "shop"].message.replace("passwordSecretRef", "").replace(
        "postrail password-hash", ""
    )
    assert config(composition)["submitters"] == []


def test_submitter_without_a_secret_cannot_sign_in_but_serves_trusted_listeners() -> None:
    pools = (ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i"))
    composition = made(*pools, body("Submitter", "relay", {"domains": ["*"], "stream": "s"}))
    (entry,) = config(composition)["submitters"]
    assert entry["name"] == "relay"
    assert not {"password_hash", "password_hash_file"} & entry.keys()


def test_objects_that_make_no_valid_configuration_change_nothing_and_all_say_why() -> None:
    pool = sender_pool("a", "s", "i", spec={"lifetimeSeconds": 432000})
    base = {**BASE, "log": {**BASE["log"], "retention_seconds": 400000}}
    composition = made(ip_pool("i", "192.0.2.1"), pool, base=base)
    assert composition.config is None
    assert "log.retention_seconds is 400000" in composition.problem
    assert reason(composition, "SenderPool", "a") is Reason.CONFIGURATION_INVALID


def test_quarantined_and_draining_addresses_keep_their_place_without_new_mail() -> None:
    status = {"addresses": [{"address": "192.0.2.9", "ehlo": "old.example.com", "state": "Active", "leasedTo": "a"}]}
    pool = ip_pool("i", "192.0.2.1", "192.0.2.2", status=status, annotations={"postrail.io/quarantine": "192.0.2.2"})
    sources = config(made(pool, sender_pool("a", "s", "i")))["pools"]["a"]["sources"]
    assert {one["address"]: one["weight"] for one in sources} == {"192.0.2.1": 100, "192.0.2.2": 0, "192.0.2.9": 0}
    assert sources[-1]["ehlo"] == "old.example.com"


def test_pool_that_is_being_deleted_still_sends() -> None:
    composition = made(ip_pool("i", "192.0.2.1"), sender_pool("a", "s", "i", deleting=True))
    assert config(composition)["streams"]["s"]["pool"] == "a"


def test_built_in_provider_keeps_its_suffixes_in_another_group() -> None:
    composition = made(body("Destination", "comcast", {"group": "cable"}))
    (provider,) = config(composition)["routing"]["providers"]
    assert provider == {"name": "comcast", "mx_suffixes": ["comcast.net"], "domains": [], "group": "cable"}
    assert "cable" in config(composition)["routing"]["groups"]


def test_login_of_a_proxy_is_read_from_a_file() -> None:
    login = {"username": "mail", "passwordSecretRef": {"name": "egress", "key": "password"}}
    pool = ip_pool("i", "192.0.2.1", binding={"mode": "socks5", "proxy": "socks5://egress", "proxyLogin": login})
    (source,) = config(made(pool, sender_pool("a", "s", "i")))["pools"]["a"]["sources"]
    assert source["proxy"] == "socks5://egress:1080"
    assert source["proxy_login"] == {"username": "mail", "password_file": "/etc/postrail/proxy/i/password"}
