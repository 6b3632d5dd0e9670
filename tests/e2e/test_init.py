"""``init``: samples from publishing devices become files that the bridge runs with."""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bridge.cli.broker import receive, temporary_link
from bridge.config.mqtt import MqttSettings
from bridge.local.broker import free_port
from bridge.timing import Deadline
from tests.conftest import API_KEY, TENANT, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

both_versions = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


def cli(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def retain(port: int, *messages: tuple[str, bytes], username: str | None = None, password: str | None = None) -> None:
    """Retained messages arrive with each subscription, so no test waits for a publisher."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    if username is not None:
        client.username_pw_set(username, password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


@both_versions
def test_files_from_a_brokers_messages_carry_messages_to_the_table(
    mosquitto: Mosquitto, gdn: LocalGdn, tmp_path: Path, protocol: str
) -> None:
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    retain(
        mosquitto.port,
        ("devices/AD11/telemetry", b'{"temperature": 18, "meta": {"site": "lab"}}'),
        ("devices/AD12/telemetry", b'{"temperature": 18.5, "meta": {"site": "lab"}}'),
        ("devices/AD11/state", b"on"),
        ("devices/AD11/packed", gzip.compress(msgspec.msgpack.encode({"level": 3.5}))),
    )
    made = tmp_path / "made"

    ended = cli(
        *("init", str(made), "--from-topic", "devices/#", "--broker", url),
        *("--seconds", "1", "--protocol", protocol),
    )

    assert ended.returncode == 0, ended.stderr
    assert "devices/{device}/telemetry" in ended.stdout
    environ = {
        "BRIDGE_GDN__API_KEY": API_KEY,
        "BRIDGE_GDN__TENANT": TENANT,
        "BRIDGE_GDN__URL": gdn.url,
        "BRIDGE_WORKER__SETTLE_TIME": "1",
        "BRIDGE_OUTBOX__PATH": str(tmp_path / "outbox.db"),
        "BRIDGE_STATUS__LISTEN": f"127.0.0.1:{free_port()}",
    }
    config = str(made / "bridge.toml")
    assert "4 of 4 examples" in cli("test", "--config", config, **environ).stdout
    bridge = Process(
        [sys.executable, "-m", "bridge", "run", "--config", config],
        tmp_path / "bridge.log",
        env={**os.environ, **environ},
    )
    try:
        wait_for(lambda: gdn.count("devices_telemetry_rows") == 2, what="the retained messages' rows")
        wait_for(lambda: gdn.count("devices_packed_rows") == 1, what="the row of the binary message")
        publish_all(
            mosquitto.port,
            [
                ("devices/AD13/telemetry", b'{"temperature": 1, "meta": {"site": "roof"}}'),
                ("devices/AD14/telemetry", b'{"temperature": -0.5}'),
            ],
        )
        wait_for(lambda: gdn.count("devices_telemetry_rows") == 4, what="rows of other devices")
    finally:
        bridge.end()
    rows = gdn.query("FOR row IN devices_telemetry_rows FILTER row.device IN ['AD13', 'AD14'] RETURN row")
    assert {(row["temperature"], row.get("meta_site")) for row in rows} == {(1, "roof"), (-0.5, None)}


@both_versions
def test_a_temporary_link_leaves_no_session_behind(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _size: "the-same")
    mqtt = MqttSettings(url=f"mqtt://127.0.0.1:{mosquitto.port}", protocol=protocol)
    for _ in range(2):
        with temporary_link(mqtt, ["t"]) as link:
            wait_for(lambda: receive(link, Deadline(1)) or link.subscribed, what="the subscription")

        assert link.session_present is False
        assert link.refused == {}


def test_the_user_and_the_password_file_are_taken_from_the_environment_or_from_options(tmp_path: Path) -> None:
    broker = guarded(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    try:
        retain(broker.port, ("t/1", b'{"n": 1}'), username="bridge", password="correct horse")
        environ = {
            "BRIDGE_MQTT__URL": f"mqtt://127.0.0.1:{broker.port}",
            "BRIDGE_MQTT__USERNAME": "bridge",
            "BRIDGE_MQTT__PASSWORD_FILE": str(secret),
        }
        ended = cli("init", str(tmp_path / "made"), "--from-topic", "t/#", "--seconds", "1", **environ)
        by_options = cli(
            *("init", str(tmp_path / "options"), "--from-topic", "t/#", "--seconds", "1"),
            *("--broker", environ["BRIDGE_MQTT__URL"], "--username", "bridge", "--password-file", str(secret)),
            *("--client-id", "visitor"),
        )
        refused = cli(
            *("init", str(tmp_path / "other"), "--from-topic", "t/#", "--seconds", "1"),
            BRIDGE_MQTT__URL=environ["BRIDGE_MQTT__URL"],
        )
    finally:
        broker.end()

    assert ended.returncode == 0, ended.stderr
    written = (tmp_path / "made" / "bridge.toml").read_text()
    assert f'url = "{environ["BRIDGE_MQTT__URL"]}"' in written
    assert "correct horse" not in written + ended.stdout + ended.stderr
    assert by_options.returncode == 0, by_options.stderr
    settings = tomllib.loads((tmp_path / "options" / "bridge.toml").read_text())["mqtt"]
    assert settings == {"url": environ["BRIDGE_MQTT__URL"], "username": "bridge", "client_id": "visitor"}
    assert re.search(r"as visitor \(", broker.text()), "the broker's log names the client"
    assert refused.returncode == 69
    assert "mqtt.username" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_silence_and_an_unreachable_broker_are_reported(mosquitto: Mosquitto, tmp_path: Path) -> None:
    silent = cli(
        *("init", str(tmp_path / "made"), "--from-topic", "nobody/speaks", "--seconds", "0.5"),
        *("--broker", f"mqtt://127.0.0.1:{mosquitto.port}"),
    )
    absent = cli("init", str(tmp_path / "made"), "--from-topic", "t", "--broker", f"mqtt://127.0.0.1:{free_port()}")

    assert (silent.returncode, absent.returncode) == (1, 69)
    assert "subscribing to nobody/speaks" in silent.stderr
    assert "no message on nobody/speaks" in silent.stderr
    assert "can't be reached" in absent.stderr
    assert "Traceback" not in silent.stderr + absent.stderr
    assert not (tmp_path / "made").exists()


def test_subscribing_stops_early_with_enough_samples(mosquitto: Mosquitto, tmp_path: Path) -> None:
    publisher = Process(
        [sys.executable, "-m", "bridge", "devices", "--url", f"mqtt://127.0.0.1:{mosquitto.port}", "--rate", "2000"],
        tmp_path / "devices.log",
    )
    try:
        ended = cli(
            *("init", str(tmp_path / "made"), "--from-topic", "devices/#", "--seconds", "50"),
            *("--broker", f"mqtt://127.0.0.1:{mosquitto.port}"),
        )
    finally:
        publisher.end()

    assert ended.returncode == 0, ended.stderr
    assert "from 2000 samples" in ended.stdout


def test_an_existing_file_ends_with_78(tmp_path: Path) -> None:
    (tmp_path / "worker.sql").write_text("mine")

    ended = cli("init", str(tmp_path), "--sample", "t", json.dumps({"n": 1}))

    assert ended.returncode == 78
    assert f"{tmp_path / 'worker.sql'}: exists already" in ended.stderr
    assert (tmp_path / "worker.sql").read_text() == "mine"


def guarded(directory: Path) -> Mosquitto:
    """A broker that accepts only the user ``bridge``."""
    passwords = directory / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "bridge", "correct horse"], check=True)
    passwords.chmod(0o600)
    home = directory / "guarded"
    home.mkdir()
    # Started by root, Mosquitto would switch to another user, who can't read the test's directory.
    return Mosquitto(home, "allow_anonymous false", "user root", f"password_file {passwords}")
