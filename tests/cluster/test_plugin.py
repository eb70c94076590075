"""`kubectl postrail` on a real cluster: it tells about mail, and what it suspends, drains and quarantines is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from postrail.core.kinds import KINDS
from tests.support.cluster_books import Injector, settle
from tests.support.cluster_receivers import Receivers
from tests.support.cluster_release import Release, ours
from tests.support.kubectl import condition, eventually, is_true, run

FOLDER = Path(sys.executable).parent
POOL = "senderpool/transactional"
Plugin = Callable[..., subprocess.CompletedProcess[str]]
Inject = Callable[..., Injector]


@pytest.fixture
def plugin(release: Release) -> Plugin:
    """`kubectl postrail COMMAND …` in the release's namespace."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{FOLDER}:{os.environ['PATH']}"
        words = ["kubectl", "postrail", *arguments, "--namespace", release.place.namespace]
        given = {**os.environ, "PATH": path, **environment}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=given, timeout=400)

    return command


@pytest.fixture
def undone(release: Release, plugin: Plugin) -> Iterator[list[tuple[str, str]]]:
    """What must be undone after a test, as command and target: also where it failed."""
    wanted: list[tuple[str, str]] = []
    yield wanted
    for verb, target in wanted:
        assert plugin(verb, target).returncode == 0
    if wanted:
        release.settled()


def rows(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def mail_to(release: Release, number: int) -> str:
    return f"inbox{number}.{release.place.zone}"


def test_a_messages_story_is_told(release: Release, receivers: Receivers, inject: Inject, plugin: Plugin) -> None:
    injector = inject(count=1)
    assert settle([injector], receivers, injector.prefix).is_even
    [arrival] = receivers.arrivals(injector.prefix)
    name = str(message_from_bytes(arrival.received.content)["Message-ID"])
    told = plugin("trace", name)
    assert told.returncode == 0, told.stderr
    assert "delivered: 250" in told.stdout
    assert f"from {arrival.received.client_address}" in told.stdout
    story = rows(plugin("trace", name, "--json", "--since", "1h").stdout)
    assert [event["type"] for event in story] == ["accepted", "routed", "delivered"]
    unknown = plugin("trace", "nobody@nowhere.test", "--since", "1h")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no events of a message nobody@nowhere.test" in unknown.stderr
    assert "command terminated" not in unknown.stderr


def test_how_mail_would_go_is_told(release: Release, plugin: Plugin) -> None:
    told = plugin("explain", f"someone@{mail_to(release, 1)}", "--json")
    assert told.returncode == 0, told.stderr
    [explained] = rows(told.stdout)
    assert explained["pool"] == "transactional"
    assert release.place.receivers[0] in told.stdout
    assert plugin("explain", "no-domain").returncode == 1


def test_a_suspended_pool_sends_nothing_and_loses_nothing(
    release: Release, receivers: Receivers, inject: Inject, plugin: Plugin, undone: list[tuple[str, str]]
) -> None:
    others = sum(_waiting(plugin))  # of pools that are no more
    undone.append(("resume", POOL))
    assert plugin("suspend", POOL).returncode == 0
    pool = eventually("the senders are gone", lambda: _state(release, "senderpool", "transactional", "Suspended"))
    assert not is_true(pool, "Ready")
    eventually("no sender runs", lambda: not release.senders.pods("app.kubernetes.io/component=sender"))
    injector = inject(count=12)
    injector.wait()
    eventually("mail waits", lambda: sum(_waiting(plugin)) == others + 12)
    assert not receivers.arrivals(injector.prefix)
    assert "to be sent" in plugin("queue").stdout
    assert plugin("resume", POOL).returncode == 0
    balance = settle([injector], receivers, injector.prefix)
    assert balance.is_even, balance
    assert balance.delivered == 12
    eventually("nothing of it waits", lambda: sum(_waiting(plugin)) == others)


def _waiting(plugin: Plugin) -> list[int]:
    return [int(str(row["deliveries"])) for row in rows(plugin("queue", "--json").stdout)]


def _state(release: Release, kind: str, name: str, reason: str) -> dict[str, object] | None:
    body = release.kubectl.get(kind, name)
    return body if condition(body, "Ready").get("reason") == reason else None


def test_a_suspended_destination_waits_while_others_get_mail(
    release: Release, receivers: Receivers, inject: Inject, plugin: Plugin
) -> None:
    held, other = mail_to(release, 2), mail_to(release, 3)
    release.kubectl.apply(ours("Destination", "held", {"domains": [held]}))
    try:
        assert plugin("suspend", "destination/held").returncode == 0
        eventually("it is suspended", lambda: _state(release, "destination", "held", "Suspended"))
        release.settled()
        waiting = inject(count=4, recipients=[held])
        others = inject(count=4, recipients=[other])
        assert settle([others], receivers, others.prefix).is_even
        waiting.wait()
        queue = eventually("it waits", lambda: _held(plugin))
        assert queue == {("deferred", "held", 4, "mail to held is suspended (limits)")}
        assert not receivers.arrivals(waiting.prefix)
        explained = plugin("explain", f"someone@{held}")
        assert explained.returncode == 75
        assert "mail to held is suspended" in explained.stdout
        assert plugin("resume", "destination/held").returncode == 0
        balance = settle([waiting], receivers, waiting.prefix)
        assert balance.is_even, balance
        assert balance.delivered == 4
    finally:
        release.kubectl.delete("destination", "held")
    release.settled()


def _held(plugin: Plugin) -> set[tuple[object, ...]]:
    found = rows(plugin("queue", "--json", "--site", "held").stdout)
    return {(row["stage"], row["site"], row["deliveries"], row["reason"]) for row in found if row["deliveries"] == 4}


def test_a_drained_address_gets_no_new_mail_until_it_is_resumed(
    release: Release, receivers: Receivers, inject: Inject, plugin: Plugin, undone: list[tuple[str, str]]
) -> None:
    drained, other = release.place.pool[:2]
    undone.append(("resume", drained))
    done = plugin("drain", drained, "--wait", "--timeout", "240")
    assert done.returncode == 0, done.stderr
    assert f"{drained} is drained: nothing waits to leave from it" in done.stdout
    release.settled()
    injector = inject(count=12)
    assert settle([injector], receivers, injector.prefix).is_even
    assert {arrival.received.client_address for arrival in receivers.arrivals(injector.prefix)} == {other}
    assert plugin("resume", drained).returncode == 0
    addresses = (release.kubectl.get("ippool", "main") or {})["spec"]["addresses"]
    assert [entry["weight"] for entry in addresses if entry["address"] == drained] == [100]


def test_an_address_is_quarantined_and_released(
    release: Release, plugin: Plugin, undone: list[tuple[str, str]]
) -> None:
    address = release.place.pool[1]
    undone.append(("release", address))
    assert plugin("quarantine", address).returncode == 0
    entry = eventually("it is in quarantine", lambda: _address(release, address, "Quarantined"))
    assert condition({"status": entry}, "Quarantined")["reason"] == "ByAnnotation"
    again = plugin("quarantine", address, "--json")
    assert rows(again.stdout) == [
        {"command": "quarantine", "target": address, "changed": False, "ippool": "main"},
    ]
    assert plugin("release", address).returncode == 0
    eventually("it is out of quarantine", lambda: _address(release, address, "Active"))


def _address(release: Release, address: str, state: str) -> dict[str, object] | None:
    status = (release.kubectl.get("ippool", "main") or {}).get("status", {})
    entries = [entry for entry in status.get("addresses", ()) if (entry["address"], entry["state"]) == (address, state)]
    return entries[0] if entries else None


def test_what_is_not_allowed_or_not_there_is_told(release: Release, plugin: Plugin, folder: Path) -> None:
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text(encoding="utf-8"))
    for user in config["users"]:
        user["user"]["as"] = f"system:serviceaccount:{release.place.namespace}:default"
    file = folder / "nobody"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    for command in (("queue",), ("suspend", POOL), ("quarantine", release.place.pool[0])):
        refused = plugin(*command, KUBECONFIG=str(file))
        assert refused.returncode == 77, refused
        assert "not allowed" in refused.stderr
        assert "docs/kubernetes/kubectl.md" in refused.stderr
    missing = plugin("suspend", "senderpool/nothing")
    assert missing.returncode == 1
    assert '"nothing" not found' in missing.stderr
    assert f"looked in the namespace {release.place.namespace}" in missing.stderr


def test_kubectl_get_is_readable(release: Release) -> None:
    release.kubectl.apply(ours("Destination", "default", {"limits": {"connections": 5}}))
    try:
        eventually("it is accepted", lambda: is_true(release.kubectl.get("destination", "default"), "Accepted"))
        for kind in KINDS:
            shown = release.kubectl("get", kind.plural)
            header, *lines = shown.splitlines()
            assert header.split("   ")[0].strip() == "NAME"
            assert lines
            for line in lines:
                assert "<unknown>" not in line, shown
                assert "[" not in line, f"a list is no cell:\n{shown}"
                assert len(line) <= 160, shown
            assert max(len(line) for line in (header, *lines)) <= 160
    finally:
        release.kubectl.delete("destination", "default")
    release.settled()


def test_the_examples_are_taken_by_the_api_server(release: Release) -> None:
    examples = Path(__file__).resolve().parents[2] / "docs" / "kubernetes" / "examples"
    namespace = release.place.namespace
    said = run(["kubectl", "apply", "--namespace", namespace, "--dry-run=server", "--validate=strict", "-f", examples])
    assert len(said.splitlines()) == len(KINDS)
