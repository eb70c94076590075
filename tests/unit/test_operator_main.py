"""The operator's command: what it refuses to start with."""

from pathlib import Path

import kopf
import pytest

from postrail_operator import __main__ as command
from postrail_operator import handlers
from postrail_operator.settings import SettingsError


def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("POSTRAIL_NAMESPACE", raising=False)
    assert command.main() == command.EXIT_CONFIGURATION
    assert "POSTRAIL_NAMESPACE is not set: the chart sets it" in capsys.readouterr().err


def test_missing_base_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("NAMESPACE", "mail"), ("RELEASE", "postrail"), ("BASE_FILE", str(tmp_path / "none.yaml"))):
        monkeypatch.setenv(f"POSTRAIL_{name}", value)
    assert command.main() == command.EXIT_CONFIGURATION
    assert "none.yaml cannot be read" in capsys.readouterr().err


def test_file_that_holds_no_mapping_is_named(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("- a\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="holds no mapping"):
        command.read_mapping(file)


def test_peering_and_finalizer_are_our_own() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings, "postrail", 17)
    assert (settings.peering.name, settings.peering.priority) == ("postrail", 17)
    assert settings.persistence.finalizer == "postrail.io/in-use"
    assert settings.scanning.disabled
