"""Arguments of the command line: their bounds, and what is said about wrong ones."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.cli import _parser, main
from bridge.log import get_logger
from bridge.mapping import Route

ROOT = Path(__file__).parents[2]
CONFIG = """
[worker]
definition = "worker.sql"
[[routes]]
topic = "devices/{deviceID}/rooms/{roomNo}/telemetry"
stream = "tutorialAppInputStream"
[[routes.test]]
topic = "devices/AD11/rooms/200/telemetry"
payload = { temperature = 18 }
expect = { deviceID = "AD11", roomNo = 200, temperature = 18 }
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Routes and a definition, without broker, GDN and credentials."""
    for name in ("BRIDGE_GDN__API_KEY", "GDN_BRIDGE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker.sql").write_text((ROOT / "config" / "worker.sql").read_text())
    (tmp_path / "bridge.toml").write_text(CONFIG)
    return str(tmp_path / "bridge.toml")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1", "x", "", "8e3", "9" * 5000])
def test_a_wrong_port_of_the_local_gdn_is_answered_with_the_range(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "argument --port: must be a whole number from 0 to 65535" in refusal(capsys, "local-gdn", f"--port={port}")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "1e9999"])
@pytest.mark.parametrize(
    ("verb", "option", "least"),
    [
        (("demo",), "--seconds", "0.1"),
        (("demo",), "--rate", "0.1"),
        (("devices",), "--rate", "0.1"),
        (("local-gdn", "--port", "1"), "--token-seconds", "1"),
        (("init",), "--seconds", "0.1"),
    ],
)
def test_a_number_out_of_bounds_is_answered_with_the_bounds(
    verb: tuple[str, ...], option: str, least: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"argument {option}: must be a number from {least} to " in refusal(capsys, *verb, f"{option}={value}")


def test_the_number_of_a_dead_letter_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a whole number from 1 to" in refusal(capsys, "deadletter", "show", "0")


def test_purging_everything_by_mistake_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deadletter", "purge"]) == 2

    assert "use --all" in capsys.readouterr().err


READING = ("devices/AD11/rooms/200/telemetry", '{"temperature": 18}')


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("check",), 0, "not set: mqtt.url, gdn.url, gdn.api_key; `run` and `check --online` need them"),
        (("check", "--json"), 0, '"unset": ["mqtt.url", "gdn.url", "gdn.api_key"]'),
        (("test",), 0, "1 of 1 examples pass"),
        (("test", "--json"), 0, '{"examples": 1, "passed": 1, "failed": []}'),
        (("explain", *READING), 0, "AD11"),
        (("deadletter", "list"), 78, "outbox.db doesn't exist"),
        (("deadletter", "replay", "--dry-run"), 78, "outbox.db doesn't exist"),
        (("status", "--set", "status.listen=127.0.0.1:1"), 69, "no status from http://127.0.0.1:1"),
        (("healthcheck", "--set", "status.listen=127.0.0.1:1"), 1, "127.0.0.1:1 doesn't answer"),
        (("check", "--online"), 78, "BRIDGE_GDN__API_KEY: is required"),
        (("query", "RETURN 1"), 78, "BRIDGE_GDN__URL: is required"),
        (("run",), 78, "BRIDGE_MQTT__URL: is required"),
    ],
)
def test_only_what_connects_needs_addresses_and_credentials(
    config: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    assert main([*words, "--config", config]) == code

    assert says in "".join(capsys.readouterr())


def test_options_of_the_settings_may_stand_before_the_verb(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", config, "--set", "mqtt.url=mqtt://h", "check", "--set", "gdn.url=h"]) == 0
    assert "not set: gdn.api_key;" in capsys.readouterr().out

    assert main(["--config", "/nowhere", "test", "--config", config]) == 0
    assert main(["--config", config, "deadletter", "list"]) == 78
    assert "outbox.db doesn't exist" in capsys.readouterr().err
    assert main(["--config", config, "devices"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [(("-V",), "gdn-bridge "), (("help",), "deadletter"), (("help", "deadletter", "purge"), "--dry-run")],
)
def test_version_and_help_are_where_they_are_looked_for(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("explain", "--json"), 2),
        (("check", "--json", "--config", "/nowhere/bridge.toml"), 78),
        (("deadletter", "purge", "--json"), 2),
        (("status", "--json", "--url", "http://127.0.0.1:1"), 69),
        (("nothing", "--json"), 2),
    ],
)
def test_with_json_an_error_is_json_too(words: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code

    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["exit_code"], told.err) == (code, "")
    assert all(isinstance(problem, str) and problem for problem in found["errors"])
    assert found["errors"]


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parsers of the verbs and of their actions."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, inner in action.choices.items():
            yield from leaves(inner, f"{name} {word}".strip())
    if not below:
        yield name, parser


def test_every_verb_takes_json() -> None:
    without = [name for name, parser in leaves(_parser()) if "--json" not in parser._option_string_actions]

    assert without == ["help"]


def test_a_warning_between_the_output_is_no_json(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*_: object) -> list[object]:
        get_logger("bridge.x").info("an.event")
        get_logger("bridge.x").warning("a.warning")
        return []

    monkeypatch.setattr(importlib.import_module("bridge.cli.check"), "find_warnings", warn)

    assert main(["check", "--config", config, "--set", "log.format=json"]) == 0

    error = capsys.readouterr().err
    assert "a.warning" in error
    assert "an.event" not in error
    assert "{" not in error


def test_check_names_settings_beyond_a_hosted_brokers_limits(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    aws = "mqtt.url=mqtts://a1-ats.iot.eu-central-1.amazonaws.com:443"
    routes = [{"topic": f"site{n}/t", "stream": "tutorialAppInputStream"} for n in range(51)]

    assert main(["check", "--config", config, "--set", aws, "--set", f"routes={json.dumps(routes)}"]) == 0

    output = capsys.readouterr().out
    assert "amazonaws.com:443: AWS IoT Core allows 50 subscriptions a connection, and the routes need 51" in output
    assert 'Set mqtt.alpn = "x-amzn-mqtt-ca"' in output
    assert "no problems found" not in output


@pytest.mark.parametrize(
    ("host", "names_it"), [("a1-ats.iot.eu-central-1.amazonaws.com", True), ("broker.example.com", False)]
)
def test_a_hosted_broker_that_refuses_the_checks_temporary_client_id_may_take_the_bridges(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str, names_it: bool
) -> None:
    module = importlib.import_module("bridge.cli.check")
    monkeypatch.setenv("BRIDGE_GDN__URL", "https://gdn.example")
    monkeypatch.setenv("BRIDGE_GDN__API_KEY", "tenant.key.secret")
    refused = nullcontext(SimpleNamespace(session_present=None))
    monkeypatch.setattr("bridge.cli.broker.temporary_link", lambda *_: refused)
    monkeypatch.setattr(module, "_wait_until_subscribed", lambda _: "the broker closed the connection")
    monkeypatch.setattr(module, "gdn_rest", lambda _: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(module, "_check_gdn", lambda *_: ())

    main(["check", "--online", "--config", config, "--set", f"mqtt.url=mqtts://{host}"])

    assert ("temporary client id, gdn-bridge-visit-" in capsys.readouterr().out) is names_it


@pytest.mark.parametrize(("per_stream", "sessions"), [(False, [["a", "b", "c"]]), (True, [["a", "c"], ["b"]])])
def test_subscriptions_are_counted_for_each_session(per_stream: bool, sessions: list[list[str]]) -> None:
    routes = [Route("a", "s"), Route("b", "t"), Route("c", "s")]
    settings = SimpleNamespace(mqtt=SimpleNamespace(session_per_stream=per_stream))
    count: Any = importlib.import_module("bridge.cli.check")._routes_of_sessions

    found = count(SimpleNamespace(routes=routes, settings=settings))

    assert sorted([route.topic for route in group] for group in found) == sessions
