"""The configuration file: what is refused, and that the message names the place. One mistake a file."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from postrail.cli.configure import TEMPLATE
from postrail.core.config import Config
from postrail.shell import configuration

FOLDER = Path(__file__).parent.parent / "golden" / "config"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_named_with_its_place(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    with pytest.raises(configuration.ConfigurationError) as refused:
        configuration.load(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert (FOLDER / f"{name}.expected").read_text(encoding="utf-8").strip() in message


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(configuration.ConfigurationError, match="no such file; write one with: postrail init"):
        configuration.load(tmp_path / "postrail.yaml")


def _template(tmp_path: Path) -> Config:
    source = Path(configuration.__file__).parent.parent / "cli" / TEMPLATE
    text = (
        source.read_text(encoding="utf-8").replace("@HOSTNAME@", "mta.example.com").replace("@DOMAIN@", "example.com")
    )
    path = tmp_path / "postrail.yaml"
    path.write_text(text, encoding="utf-8")
    return configuration.load(path)


def test_the_template_is_valid_and_its_files_are_beside_it(tmp_path: Path) -> None:
    config = _template(tmp_path)
    assert config.hostname == "mta.example.com"
    assert config.ingress.tls is not None
    assert config.ingress.tls.certificate_file == str(tmp_path / "tls/fullchain.pem")
    assert config.data_directory == str(tmp_path / "data")


def test_the_machine_is_checked(tmp_path: Path) -> None:
    problems = configuration.check_machine(_template(tmp_path))
    text = "\n".join(problems)
    assert "ingress.tls.certificate_file" in text
    assert "make one with: postrail dkim generate example.com --selector mail1" in text
    assert "pools.default.sources: 192.0.2.10 is not an address of this machine" in text


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setuid(65534)


def _said_of(config: Config) -> list[str]:
    try:
        configuration.make_data_directory(config)
    except configuration.ConfigurationError as error:
        return [*configuration.check_machine(config), str(error)]
    return configuration.check_machine(config)


def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    config = _template(tmp_path)
    assert config.ingress.tls is not None
    (tmp_path / "tls").mkdir()
    Path(config.ingress.tls.certificate_file).touch()
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _become_nobody) as another_user:
            text = "\n".join(another_user.submit(_said_of, config).result())
    finally:
        tmp_path.chmod(0o700)
    assert f"ingress.tls.certificate_file: {config.ingress.tls.certificate_file} cannot be read by this user" in text
    assert "cannot be written by this user; name another folder, or let this user write it" in text


def test_password_hashes_do_not_show_in_a_representation(tmp_path: Path) -> None:
    assert "argon2id" not in repr(_template(tmp_path))
