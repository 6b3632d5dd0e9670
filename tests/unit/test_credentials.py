from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge import log
from bridge.config import Settings, load
from bridge.errors import ConfigError
from bridge.log import Redactor
from bridge.service.credentials import Credentials, CredentialSource


@pytest.fixture(autouse=True)
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    own = Redactor()
    monkeypatch.setattr(log, "_redactor", own)
    return own


class Files:
    """Secret files, and the settings that they make."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secrets = directory / "secrets"
        self.secrets.mkdir()
        self.environ = {
            "BRIDGE_MQTT__URL": "mqtt://broker",
            "BRIDGE_GDN__URL": "https://gdn.example",
            "BRIDGE_GDN__TENANT": "tenant",
            "BRIDGE_WORKER__DEFINITION": str(directory / "worker.sql"),
            "BRIDGE_ROUTES": json.dumps([{"topic": "devices/{deviceID}", "stream": "readings"}]),
        }
        (directory / "worker.sql").write_text("@App:name('w')")
        self.write("gdn__api_key", "t.k.first")
        self.write("mqtt__username", "bridge")
        self.write("mqtt__password", "pa55-first")

    def write(self, name: str, text: str) -> None:
        (self.secrets / name).write_text(text)

    def load(self) -> Settings:
        return load(config_file=None, environ=self.environ, secret_directories=[self.secrets])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def source(files: Files) -> CredentialSource:
    return CredentialSource(files.load(), files.load)


def test_what_stands_in_the_files_now_is_used(files: Files, source: CredentialSource, redactor: Redactor) -> None:
    assert source.now() == Credentials("t.k.first", "bridge", "pa55-first")

    files.write("gdn__api_key", "t.k.second\n")
    files.write("mqtt__username", "other")
    files.write("mqtt__password", "pa55-second")

    assert source.now() == Credentials("t.k.second", "other", "pa55-second")
    assert redactor.clean("t.k.second pa55-second other") == "[redacted] [redacted] other"


def test_credentials_may_come_and_go(files: Files, source: CredentialSource) -> None:
    (files.secrets / "mqtt__password").unlink()
    (files.secrets / "mqtt__username").unlink()

    assert source.now() == Credentials("t.k.first", None, None)


def test_a_change_is_logged_once_and_without_values(files: Files, source: CredentialSource) -> None:
    files.write("gdn__api_key", "t.k.second")

    with capture_logs() as logs:
        for _ in range(3):
            source.now()

    assert [entry["event"] for entry in logs] == ["credentials.changed"]
    assert "second" not in repr(logs)


@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
def test_files_that_cant_be_read_now_leave_the_last_good_credentials(
    files: Files, source: CredentialSource, damage: str
) -> None:
    files.write("mqtt__password", "pa55-second")
    second = source.now()

    if damage == "gone":
        (files.secrets / "gdn__api_key").unlink()
    else:
        files.write("gdn__api_key", "" if damage == "empty" else "t.k\n.second")

    assert source.now() == second == Credentials("t.k.first", "bridge", "pa55-second")


def test_a_problem_is_logged_once_until_it_changes_or_returns(files: Files, source: CredentialSource) -> None:
    key, password = files.secrets / "gdn__api_key", files.secrets / "mqtt__password"

    with capture_logs() as logs:
        key.unlink()
        source.now()
        source.now()
        password.write_text("")
        source.now()
        files.write("gdn__api_key", "t.k.first")
        files.write("mqtt__password", "pa55-first")
        source.now()
        key.unlink()
        password.write_text("")
        source.now()

    warned = [entry for entry in logs if entry["event"] == "credentials.unreadable"]
    assert len(warned) == 3
    assert all(entry["log_level"] == "warning" for entry in warned)
    assert "pa55" not in repr(logs)


def test_other_settings_that_changed_are_no_concern(files: Files, source: CredentialSource) -> None:
    files.environ["BRIDGE_MQTT__URL"] = "mqtt://elsewhere"

    with capture_logs() as logs:
        source.now()

    assert logs == []


def test_no_secret_is_in_the_repr() -> None:
    shown = repr(Credentials("t.k.s3cr3t", "bridge", "pa55"))

    assert "s3cr3t" not in shown
    assert "pa55" not in shown


def test_a_text_of_several_problems_is_one_problem(files: Files) -> None:
    def wrong() -> Settings:
        raise ConfigError("one", "two")

    source = CredentialSource(files.load(), wrong)
    with capture_logs() as logs:
        source.now()
        source.now()

    assert [entry["problems"] for entry in logs] == [("one", "two")]


def test_a_fault_in_the_loading_of_settings_keeps_the_last_good_credentials(files: Files) -> None:
    def loads() -> Settings:
        raise StopIteration("t.k.first")

    with capture_logs() as logs:
        source = CredentialSource(files.load(), loads)
        assert source.now() == source.now() == Credentials("t.k.first", "bridge", "pa55-first")

    (entry,) = logs
    assert entry["event"] == "credentials.unreadable"
    assert entry["problems"][0].startswith("a fault of gdn-bridge, please report it: StopIteration (")
    assert "t.k.first" not in str(entry)
