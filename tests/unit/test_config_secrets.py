"""Secrets can come from files, and appear in no message and no repr, wherever they are put."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from bridge.config import load
from bridge.config.tree import every_setting, variable
from bridge.errors import ConfigError

PLANTED = "hunter2-PLANTED"


@pytest.fixture
def environ() -> dict[str, str]:
    """A configuration without its API key."""
    return {
        "BRIDGE_MQTT__URL": "mqtt://broker",
        "BRIDGE_MQTT__USERNAME": "bridge",
        "BRIDGE_GDN__URL": "https://gdn.example",
        "BRIDGE_GDN__TENANT": "tenant",
        "BRIDGE_WORKER__DEFINITION": __file__,
        "BRIDGE_ROUTES": '[{"topic": "a", "stream": "s"}]',
    }


def key(environ: dict[str, str], *directories: Path, config_file: Path | None = None) -> str:
    settings = load(config_file=config_file, environ=environ, secret_directories=directories)
    assert settings.gdn.api_key is not None
    return settings.gdn.api_key.get_secret_value()


def problem(environ: dict[str, str], *directories: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        key(environ, *directories)
    (text,) = caught.value.problems
    return text


def directory(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("name", ["gdn__api_key", "bridge_gdn__api_key", "BRIDGE_GDN__API_KEY"])
def test_a_secret_file_is_found_by_its_name(environ: dict[str, str], tmp_path: Path, name: str) -> None:
    secrets = directory(tmp_path / "secrets", **{name: "k.e.y\n", "foreign": "x", "a__b": "x"})

    assert key(environ, secrets) == "k.e.y"


def test_only_line_breaks_at_the_end_are_removed(environ: dict[str, str], tmp_path: Path) -> None:
    secrets = directory(tmp_path / "secrets", mqtt__password=" pass word \r\n", gdn__api_key="k")

    settings = load(config_file=None, environ=environ, secret_directories=[secrets])

    assert settings.mqtt.password is not None
    assert settings.mqtt.password.get_secret_value() == " pass word "


def test_the_source_of_a_secret_with_the_highest_precedence_wins(environ: dict[str, str], tmp_path: Path) -> None:
    mounted = directory(tmp_path / "mounted", gdn__api_key="mounted")
    credentials = directory(tmp_path / "credentials", gdn__api_key="credentials")
    named = tmp_path / "named"
    named.write_text("named")
    file = tmp_path / "bridge.toml"
    file.write_text('[gdn]\napi_key = "file"\n')

    assert key(environ, tmp_path / "absent", config_file=file) == "file"
    assert key(environ, mounted, config_file=file) == "mounted"
    environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    assert key(environ, mounted, config_file=file) == "credentials"
    environ["BRIDGE_GDN__API_KEY_FILE"] = str(named)
    assert key(environ, mounted, config_file=file) == "named"
    environ["BRIDGE_GDN__API_KEY"] = "environment"
    assert key(environ, mounted, config_file=file) == "environment"


def test_a_mistyped_secret_file_is_refused_with_a_suggestion(environ: dict[str, str], tmp_path: Path) -> None:
    secrets = directory(tmp_path / "secrets", gdn__api_key="k", gdn__api_kye="k")

    expected = "there is no such setting; did you mean BRIDGE_GDN__API_KEY?"
    assert problem(environ, secrets) == f"{secrets / 'gdn__api_kye'}: {expected}"


def test_an_empty_secret_file_is_one_problem(environ: dict[str, str], tmp_path: Path) -> None:
    secrets = directory(tmp_path / "secrets", gdn__api_key="\n")

    assert problem(environ, secrets) == f"{secrets / 'gdn__api_key'}: the secret file is empty"


def test_a_secret_file_must_be_text(environ: dict[str, str], tmp_path: Path) -> None:
    secrets = directory(tmp_path / "secrets")
    (secrets / "gdn__api_key").write_bytes(b"\xff\xfe")

    assert problem(environ, secrets) == f"{secrets / 'gdn__api_key'}: the secret file is not UTF-8 text"


def test_a_directory_as_secret_file_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    secrets = directory(tmp_path / "secrets")
    (secrets / "gdn__api_key").mkdir()

    assert problem(environ, secrets) == f"{secrets / 'gdn__api_key'}: is not a regular file"


def test_a_secret_given_instead_of_its_files_path_is_not_shown(environ: dict[str, str]) -> None:
    found = problem(environ | {"BRIDGE_GDN__API_KEY_FILE": PLANTED})

    assert found == "BRIDGE_GDN__API_KEY_FILE: the secret file can't be read: No such file or directory"


def test_only_secrets_have_a_file_variable(environ: dict[str, str]) -> None:
    found = problem(environ | {"BRIDGE_GDN__API_KEY": "k", "BRIDGE_GDN__TENANT_FILE": "x"})

    assert found.startswith("BRIDGE_GDN__TENANT_FILE: there is no such setting")


@pytest.mark.parametrize("value", [f"apikey {PLANTED}", f'"{PLANTED}" ', f"{PLANTED}\t", "schlüssel"])
def test_a_key_with_a_prefix_or_spaces_is_refused(environ: dict[str, str], value: str) -> None:
    assert problem(environ | {"BRIDGE_GDN__API_KEY": value}) == (
        "BRIDGE_GDN__API_KEY: must be the key alone: printable ASCII without spaces, and without `apikey` in front"
    )


def shown(environ: dict[str, str], config_file: Path | None = None) -> str:
    """Everything of a configuration that a user can see."""
    try:
        settings = load(config_file=config_file, environ=environ, secret_directories=())
    except ConfigError as exc:
        return "".join(traceback.format_exception(exc)) + repr(exc)
    return f"{settings!r} {settings} {settings.gdn!r} {settings.mqtt}"


SECRETS = [
    f"a {PLANTED}\n",
    f"mqtt://u:{PLANTED}@h:x",
    f"[{PLANTED}",
    f'{{"x": "{PLANTED}"}}',
    f"h:{PLANTED}",
    f"//{PLANTED}[",
]


@pytest.mark.parametrize("value", SECRETS)
@pytest.mark.parametrize("name", [variable(location) for location, _ in every_setting()])
def test_a_secret_in_the_wrong_variable_is_in_no_message(environ: dict[str, str], name: str, value: str) -> None:
    text = shown(environ | {"BRIDGE_GDN__API_KEY": "k", "BRIDGE_LOG__LEVEL": "loud"} | {name: value})

    assert "BRIDGE_LOG__LEVEL: must be" in text
    assert PLANTED not in text


@pytest.mark.parametrize("name", ["MQTT", "GDN", "WORKER", "ROUTES", "OUTBOX", "LOG", "STATUS"])
@pytest.mark.parametrize(
    "value", [*SECRETS, json.dumps([PLANTED]), json.dumps({"url": [PLANTED], "path": {"a": PLANTED}})]
)
def test_a_secret_in_a_groups_variable_is_in_no_message(environ: dict[str, str], name: str, value: str) -> None:
    text = shown(environ | {f"BRIDGE_{name}": value, "BRIDGE_STOP_TIMEOUT": "x"})

    assert "BRIDGE_STOP_TIMEOUT: must be" in text
    assert PLANTED not in text


@pytest.mark.parametrize(
    "line",
    [
        f"keepalive = '{PLANTED}'",
        f"url = 'mqtt://u:{PLANTED}@h'",
        f"ca_file = '{PLANTED}'",
        f"password = {PLANTED}",
        f"password = '{PLANTED}",
        f"password = ['{PLANTED}']",
        f"colour = '{PLANTED}'",
        f"{PLANTED} {PLANTED}",
    ],
)
def test_a_secret_in_the_wrong_place_of_the_file_is_in_no_message(
    environ: dict[str, str], tmp_path: Path, line: str
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(f"[mqtt]\n{line}\n")
    del environ["BRIDGE_MQTT__URL"]

    text = shown(environ, file)

    assert f"{file}:" in text
    assert PLANTED not in text


def test_secrets_in_their_place_are_in_no_repr(environ: dict[str, str]) -> None:
    text = shown(environ | {"BRIDGE_GDN__API_KEY": PLANTED, "BRIDGE_MQTT__PASSWORD": PLANTED})

    assert "gdn.example" in text
    assert PLANTED not in text
