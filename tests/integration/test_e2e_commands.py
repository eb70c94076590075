"""The `postrail` command as a person uses it: beside a running system, and when something is wrong."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.mail_world import PASSWORD, SENDER_DOMAIN, SOURCE_ADDRESS, USER, MailWorld
from tests.support.messages import message
from tests.support.postrail_process import PostrailProcess, run_command, send, submitting
from tests.support.processes import wait_for

SENDER = f"app@{SENDER_DOMAIN}"


def test_trace_tells_the_story_of_a_message(world: MailWorld, postrail: PostrailProcess) -> None:
    good, unknown = "traced@receiver.test", "nobody-traced@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        queue_id = send(client, "", [good, unknown], message(SENDER, good, extra="Message-ID: <story@sender.test>\r\n"))
    postrail.wait_for_event(queue_id, "failed", unknown)
    postrail.wait_for_event(queue_id, "delivered", good)
    told = postrail.run("trace", queue_id)
    assert told.returncode == 0, told.stderr
    for part in (f"submitted by {USER}", good, "delivered", unknown, "failed", "550 5.1.1", "mx.receiver.test"):
        assert part in told.stdout
    assert f"from {SOURCE_ADDRESS}" in told.stdout
    assert postrail.run("trace", "<story@sender.test>").stdout == told.stdout


def test_trace_of_an_unknown_message_says_so(postrail: PostrailProcess) -> None:
    done = postrail.run("trace", "nothing@nowhere.test")
    assert (done.returncode, done.stdout) == (1, "")
    assert "never accepted here" in done.stderr


def test_queue_shows_what_waits_and_why(world: MailWorld, own_postrail: PostrailProcess) -> None:
    own_postrail.start()
    empty = own_postrail.run("queue")
    assert (empty.returncode, empty.stdout) == (0, "the queue is empty\n")
    with submitting(own_postrail, USER, PASSWORD) as client:
        queue_id = send(client, SENDER, ["info@down.test"], message(SENDER, "info@down.test"))
    own_postrail.wait_for_event(queue_id, "deferred")
    (row,) = wait_for("the deferral", own_postrail.queue)
    assert (row["message_id"], row["sender"], row["recipients"]) == (queue_id, SENDER, ["info@down.test"])
    for options in ((), ("--messages",)):
        shown = own_postrail.run("queue", *options).stdout
        assert "mx.down.test" in shown
        assert "refused" in shown
    own_postrail.stop()
    assert queue_id in own_postrail.run("queue", "--messages").stdout


@pytest.mark.parametrize(
    ("address", "status", "parts"),
    [
        ("user@receiver.test", 0, ("mx.receiver.test", SOURCE_ADDRESS)),
        (f"user@{SENDER_DOMAIN}", 0, ("lmtp",)),
        ("user@nullmx.test", 1, ("5.1.10",)),
        ("user@no-such-name.receiver.test", 1, ("5.1.2",)),
    ],
)
def test_explain_says_how_mail_would_go(
    postrail: PostrailProcess, address: str, status: int, parts: tuple[str, ...]
) -> None:
    done = postrail.run("explain", address)
    assert done.returncode == status, done.stderr
    for part in parts:
        assert part in done.stdout.lower()


def test_send_test_is_accepted_and_delivered(world: MailWorld, postrail: PostrailProcess, tmp_path: Path) -> None:
    done = postrail.run("send-test", "trusted-test@receiver.test", "--sender", SENDER)
    assert done.returncode == 0, done.stderr
    assert "postrail trace" in done.stdout
    world.postfix.wait_for_mail("trusted-test@receiver.test")
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD + "\n")
    done = postrail.run("send-test", "auth-test@receiver.test", "--user", USER, "--password-file", str(password_file))
    assert done.returncode == 0, done.stderr
    world.postfix.wait_for_mail("auth-test@receiver.test")
    password_file.write_text("wrong\n")
    done = postrail.run("send-test", "auth-test@receiver.test", "--user", USER, "--password-file", str(password_file))
    assert done.returncode == 1
    assert "535" in done.stderr


@pytest.mark.embedded
def test_send_test_says_that_nobody_listens(own_postrail: PostrailProcess) -> None:
    own_postrail.write_config()
    done = own_postrail.run("send-test", "user@receiver.test")
    assert done.returncode == 69
    assert "postrail up" in done.stderr


def test_written_configuration_is_complete_but_for_what_it_names(tmp_path: Path) -> None:
    done = run_command("init", "--hostname", "mail.example.net", "--domain", "example.net", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    again = run_command("init", folder=tmp_path)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert run_command("config", "check", "--file-only", folder=tmp_path).returncode == 0
    checked = run_command("config", "check", folder=tmp_path)
    assert checked.returncode == 78
    for part in ("certificate_file", "key_file", "postrail dkim generate example.net", "192.0.2.10"):
        assert part in checked.stderr


@pytest.mark.embedded
def test_steps_that_init_names_lead_to_a_configuration_that_passes(tmp_path: Path, world: MailWorld) -> None:
    written = run_command("init", "--hostname", "mail.example.net", "--domain", "example.net", folder=tmp_path).stdout
    step = re.search(r"postrail (dkim generate .*?)  ", written)
    assert step is not None
    made = run_command(*step[1].split(), folder=tmp_path)
    assert made.returncode == 0, made.stderr
    signing = yaml.safe_load(made.stdout[made.stdout.index("\nsigning:") :])
    file = tmp_path / "postrail.yaml"
    config = yaml.safe_load(file.read_text())
    config["signing"] = signing["signing"]
    config["ingress"] = {"tls": world.config()["ingress"]["tls"], "listeners": []}
    config["pools"] = world.config()["pools"]
    file.write_text(yaml.safe_dump(config))
    checked = run_command("config", "check", folder=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"hostnam": "x"}, "hostnam"),
        ({"workers": 0}, "workers"),
        ({"pools": {}}, "pools"),
        ({"delivery": {"retry": {"tiers_seconds": ["5m", "1m"]}}}, "delivery.retry"),
        ({"log": {"retention_seconds": "1d"}}, "retention_seconds"),
    ],
)
def test_wrong_configuration_names_the_field(own_postrail: PostrailProcess, change: dict[str, Any], place: str) -> None:
    own_postrail.config.update(change)
    own_postrail.write_config()
    for command in (("config", "check"), ("up",)):
        done = own_postrail.run(*command)
        assert done.returncode == 78
        assert place in done.stderr
        assert "Traceback" not in done.stderr


def test_missing_configuration_says_how_to_write_one(tmp_path: Path) -> None:
    done = run_command("up", "--config", str(tmp_path / "absent.yaml"))
    assert done.returncode == 78
    assert "postrail init" in done.stderr


@pytest.mark.embedded
@pytest.mark.parametrize("workers", [1, 2])
def test_data_directory_that_cannot_be_made_is_named(own_postrail: PostrailProcess, workers: int) -> None:
    own_postrail.workers = workers
    own_postrail.config["data_directory"] = "/proc/postrail"  # nobody can make a folder there, not even root
    own_postrail.write_config()
    done = own_postrail.run("up")
    assert done.returncode in {69, 78}
    for part in ("data_directory: /proc", "this user"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.embedded
@pytest.mark.parametrize("workers", [1, 2])
def test_second_start_on_the_same_data_directory_is_refused(own_postrail: PostrailProcess, workers: int) -> None:
    own_postrail.workers = workers
    own_postrail.start()
    second = PostrailProcess(own_postrail.config_file.parent / "second", own_postrail.config)
    listeners = [{**listener, "port": 0} for listener in own_postrail.config["ingress"]["listeners"]]
    second.config.update(
        data_directory=own_postrail.config["data_directory"],
        ingress={**own_postrail.config["ingress"], "listeners": listeners},
        health={"port": 0},
    )
    second.write_config()
    done = second.run("up")
    assert done.returncode == 69
    assert own_postrail.config["data_directory"] in done.stderr
    assert "Traceback" not in done.stderr
    assert own_postrail.ready()
    own_postrail.stop()


@pytest.mark.embedded
@pytest.mark.parametrize("which", ["listener", "health"])
def test_port_that_is_taken_is_named(own_postrail: PostrailProcess, which: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        if which == "listener":
            own_postrail.config["ingress"]["listeners"][0]["port"] = port
        else:
            own_postrail.config["health"]["port"] = port
        own_postrail.write_config()
        done = own_postrail.run("up")
    assert done.returncode in {69, 78}
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.embedded
def test_interrupt_from_the_keyboard_ends_cleanly(own_postrail: PostrailProcess) -> None:
    own_postrail.start()
    own_postrail.stop(signal.SIGINT)
    assert "Traceback" not in own_postrail.log.read_text()


@pytest.mark.embedded
def test_single_service_with_the_embedded_log_is_refused(postrail: PostrailProcess) -> None:
    done = postrail.run("sender")
    assert done.returncode == 78
    assert "postrail up" in done.stderr


def test_wrong_usage_ends_with_64() -> None:
    done = run_command("uip")
    assert done.returncode == 64
    assert "--help" in done.stderr


def test_metrics_count_what_happened(world: MailWorld, postrail: PostrailProcess) -> None:
    recipient = "counted@receiver.test"
    with submitting(postrail, USER, PASSWORD) as client:
        send(client, SENDER, [recipient], message(SENDER, recipient))
    world.postfix.wait_for_mail(recipient)
    names = {line.split("{")[0].split(" ")[0] for line in postrail.metrics().splitlines() if not line.startswith("#")}
    ours = {name for name in names if not name.startswith(("python_", "process_"))}
    assert ours
    assert not [name for name in ours if not name.startswith("postrail_")]
