"""Topics of a real Kafka: made from nothing, checked, repaired; a service would refuse those that could lose mail."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from postrail.cli.main import main
from postrail.core.config import Config
from postrail.core.topic_specs import specs
from postrail.log.interface import LogUnavailable
from postrail.log.kafka.admin import TopicsUnfit, check_topics
from postrail.shell.configuration import load
from tests.support.kafka import KafkaBroker
from tests.support.processes import free_port

Said = pytest.CaptureFixture[str]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, kafka_broker: KafkaBroker, kafka_prefix: str) -> Write:
    """Writes a configuration for this test's topics on the shared broker."""

    def write_file(**kafka: object) -> Path:
        described = {
            "bootstrap_servers": [kafka_broker.bootstrap],
            "topic_prefix": kafka_prefix,
            "partitions": 2,
            "replication_factor": 1,
            "min_insync_replicas": 1,
            **kafka,
        }
        source = {"address": "127.0.0.1", "ehlo": "mail.example.com"}
        data = {
            "hostname": "mail.example.com",
            "data_directory": "data",
            "pools": {"default": {"sources": [source]}},
            "routing": {"groups": ["default"]},
            "health": {"port": 0},
            "log": {"kind": "kafka", "kafka": described},
        }
        path = tmp_path / "postrail.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write_file


def topics(verb: str, path: Path, *options: str) -> int:
    return main(["topics", verb, "--config", str(path), *options])


async def own_settings(bootstrap: str, topic: str) -> dict[str, str]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        (response,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}
    finally:
        await client.close()


async def set_on_topic(bootstrap: str, topic: str, **settings: object) -> None:
    """Change a topic as an operator would with Kafka's own tools; returns when the broker shows it."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        values = {name.replace("_", "."): str(value) for name, value in settings.items()}
        (response,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
        assert [resource[0] for resource in response.resources] == [0]
    finally:
        await client.close()
    while not values.items() <= (await own_settings(bootstrap, topic)).items():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def prefix_of(config: Config) -> str:
    assert config.log.kafka is not None
    return config.log.kafka.topic_prefix


def test_topics_are_made_from_nothing_and_only_once(write: Write, capsys: Said) -> None:
    path = write()
    config = load(path)
    assert topics("check", path) == 1
    assert f"topic {prefix_of(config)}accepted.urgent: it does not exist" in capsys.readouterr().err
    assert topics("plan", path) == 0
    planned = capsys.readouterr().out
    assert planned.count("\ncreate ") + planned.startswith("create ") == len(specs(config))
    assert topics("apply", path) == 0
    assert capsys.readouterr().out.count("created ") == len(specs(config))
    assert topics("apply", path) == 0
    assert capsys.readouterr().out == "there was nothing to do\n"
    assert topics("check", path) == 0


async def test_service_refuses_a_retention_shorter_than_the_lifetime(write: Write, kafka_broker: KafkaBroker) -> None:
    config = load(write(create_topics=True))
    await check_topics(config)
    name = f"{prefix_of(config)}outbound.default.default.bulk"
    await set_on_topic(kafka_broker.bootstrap, name, retention_ms=3600 * 1000, segment_ms=12_345_678)
    with pytest.raises(TopicsUnfit) as refused:
        await check_topics(config)
    assert {problem.topic for problem in refused.value.problems} == {name}
    assert re.search(
        "keeps records for 3600 s, but they must be kept 8 days or more.*run: postrail topics apply", str(refused.value)
    )


def test_no_service_starts_on_a_topic_that_loses_mail(write: Write, kafka_broker: KafkaBroker) -> None:
    path = write()
    topics("apply", path)
    name = f"{prefix_of(load(path))}signed.bulk"
    asyncio.run(set_on_topic(kafka_broker.bootstrap, name, retention_ms=7 * 86400 * 1000, max_message_bytes=2 << 20))
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "postrail", service, "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for service in ("sender", "up")
    ]
    for process, output in [(process, process.communicate(timeout=60)[1]) for process in started]:
        assert process.returncode == 69
        (said,) = [line for line in output.splitlines() if line.startswith("postrail: cannot start")]
        assert f"topic {name}: retention.ms keeps records for 7 days, but they must be kept 8 days or more" in said
        assert "run: postrail topics apply" in said


def test_apply_corrects_settings_and_leaves_others_alone(write: Write, kafka_broker: KafkaBroker, capsys: Said) -> None:
    path = write()
    topics("apply", path)
    name = f"{prefix_of(load(path))}deferred.60s"
    asyncio.run(
        set_on_topic(kafka_broker.bootstrap, name, retention_ms=1000, cleanup_policy="compact", segment_ms=12_345_678)
    )
    capsys.readouterr()
    assert topics("check", path, "--json") == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    dangers = [row for row in told if row["severity"] == "danger"]
    assert {row["topic"] for row in dangers} == {name}
    assert {row["repair"] for row in dangers} == {f"run: postrail topics apply --config {path}"}
    assert topics("apply", path) == 0
    out = capsys.readouterr().out
    assert f"set {name}: cleanup.policy=delete (was compact)" in out
    assert f"set {name}: retention.ms=691200000 (was 1000)" in out
    settings = asyncio.run(own_settings(kafka_broker.bootstrap, name))
    assert (settings["segment.ms"], settings["retention.bytes"]) == ("12345678", "-1")
    assert topics("check", path) == 0


def test_partitions_are_raised_when_asked(write: Write, capsys: Said) -> None:
    topics("apply", write())
    path = write(partitions=3)
    capsys.readouterr()
    assert topics("apply", path) == 0
    said = capsys.readouterr()
    assert said.out == "there was nothing to do\n"
    assert "it has 2 partitions, and the configuration says 3; keys move" in said.err
    assert topics("apply", path, "--raise-partitions") == 0
    assert "accepted.bulk from 2 to 3 partitions" in capsys.readouterr().out
    assert topics("plan", path) == 0
    assert "there is nothing to do" in capsys.readouterr().out


def test_more_copies_than_brokers_are_refused_in_a_sentence(write: Write, capsys: Said) -> None:
    path = write(replication_factor=7, min_insync_replicas=2)
    assert topics("apply", path) == 1
    assert re.search(
        r"accepted\.urgent: it cannot be created: .*replication factor", capsys.readouterr().err, re.IGNORECASE
    )


async def test_unreachable_broker_is_named(write: Write) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(LogUnavailable, match=f"Kafka at {address} cannot be reached"):
        await check_topics(load(write(bootstrap_servers=[address])))


def test_commands_say_that_no_broker_answers(write: Write, capsys: Said) -> None:
    path = write(bootstrap_servers=[f"127.0.0.1:{free_port()}"])
    assert topics("check", path) == 69
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert len(said.splitlines()) == 1


def test_apply_tries_again_for_as_long_as_it_is_told(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr("postrail.cli.topics.WAIT_SECONDS", 0.2)
    path = write(bootstrap_servers=[f"127.0.0.1:{free_port()}"])
    assert topics("apply", path, "--wait-seconds", "0.1") == 69
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_embedded_log_has_nothing_to_do(write: Write, capsys: Said) -> None:
    path = write()
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**data, "log": {}}))
    assert [topics(verb, path) for verb in ("plan", "apply", "check")] == [0, 0, 0]
    assert capsys.readouterr().out == "the embedded log makes its topics itself: there is nothing to do\n" * 3
