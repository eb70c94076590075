"""`postrail dkim generate`: what it writes, prints and refuses; the record's text."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

import pytest
import yaml

from postrail.cli import dkim
from postrail.core import dkim_record
from postrail.core.config import SigningConfig
from postrail.signing.keys import KeyRing, load_private, public_key


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    dkim.add_parser(parser.add_subparsers())
    args = parser.parse_args(["dkim", *arguments])
    return int(args.run(args))


def test_generate_prints_a_record_and_a_configuration_that_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "Example.com", "--directory", str(tmp_path), "--selector", "s1") == 0
    out = capsys.readouterr().out
    config = SigningConfig.model_validate(yaml.safe_load(out[out.index("signing:") :])["signing"])
    keys = KeyRing(config, lambda: 0.0).keys("example.com")
    assert [(key.selector, key.algorithm) for key in keys] == [
        (b"s1-rsa", b"rsa-sha256"),
        (b"s1-ed25519", b"ed25519-sha256"),
    ]
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert dkim_record.value(public_key(load_private(file))) in out.splitlines()


def test_generate_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("generate", "example.com", "--directory", str(tmp_path), "--algorithm", "ed25519")
    assert run(*arguments) == 0
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    capsys.readouterr()
    assert run(*arguments) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--bits", "1024"), "2048 to 4096"),
        (("--selector", "a b"), "selector"),
        (("--directory", "a-file/keys", "--algorithm", "ed25519"), "Not a directory"),
    ],
)
def test_generate_says_what_is_wrong(
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.chdir(tmp_path)
    assert run("generate", "example.com", *arguments) == 1
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["a-file"]


def test_a_record_reads_back() -> None:
    key = dkim_record.PublicKey("rsa", bytes(range(256)) * 2)
    assert dkim_record.parse(dkim_record.value(key)) == key
    strings = dkim_record.zone_line("s", "example.com", key).split('"')[1::2]
    assert "".join(strings) == dkim_record.value(key)
    assert max(map(len, strings)) == 255


@pytest.mark.parametrize("text", ["v=DKIM1; k=rsa", "v=DKIM1; p=", "v=DKIM2; p=AAAA", "v=DKIM1; p=!", "nonsense"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        dkim_record.parse(text)
