"""Dead letters are listed, given back with their bodies, and then no longer listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from postrail.cli.main import main
from postrail.core import topics
from postrail.core.log_config import LogConfig
from postrail.core.records import DeadLetter
from postrail.log.interface import Append
from postrail.log.sqlite import inspect, open_log
from postrail.wire.codec import encode_dead_letter

LETTER = DeadLetter("accepted.bulk", 0, 7, b"some-message", b"some-value", "signing", "ValueError: no", 1e9, 3)


@pytest.fixture
async def config_file(tmp_path: Path) -> Path:
    log = open_log(tmp_path / "data" / "worker-0" / "log.sqlite", LogConfig())
    await log.append([Append(topics.DEAD_LETTERS, LETTER.key, encode_dead_letter(LETTER), b"the body")])
    await log.close()
    config = {
        "hostname": "mail.example.com",
        "data_directory": str(tmp_path / "data"),
        "pools": {"default": {"sources": [{"address": "127.0.0.1", "ehlo": "mail.example.com"}]}},
    }
    path = tmp_path / "postrail.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_letters_are_listed_given_back_once_and_gone(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", "--json", "--config", str(config_file)]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "ValueError: no"

    assert main(["dead-letters", "--reinject", "--config", str(config_file)]) == 0
    assert capsys.readouterr().out.startswith("1 dead letters were given back")
    assert main(["dead-letters", "--reinject", "--config", str(config_file)]) == 0
    assert capsys.readouterr().out.startswith("0 dead letters were given back")

    assert main(["dead-letters", "--config", str(config_file)]) == 0
    assert capsys.readouterr().out == "there are no dead letters\n"
    path = config_file.parent / "data" / "worker-0" / "log.sqlite"
    (record,) = inspect.records(path, "accepted.bulk")
    assert (record.key, record.value) == (b"some-message", b"some-value")
    assert isinstance(record.body, inspect.StoredBody)
    assert record.body.read() == b"the body"


async def test_a_running_system_is_left_alone(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = open_log(config_file.parent / "data" / "worker-0" / "log.sqlite", LogConfig())
    try:
        from asyncio import to_thread

        assert await to_thread(main, ["dead-letters", "--reinject", "--config", str(config_file)]) == 69
    finally:
        await log.close()
    assert "log.sqlite" in capsys.readouterr().err
