from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.devices import reading
from tests.conftest import Mosquitto, Process, wait_for

pytestmark = pytest.mark.integration

# Started by root, Mosquitto would switch to another user, who can't read the test's directory.
WITH_PASSWORD = ("allow_anonymous false", "password_file {0}", "log_type all", "user root")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that requires a password."""
    users = tmp_path / "users"
    users.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", users, "devices", "s3cret"], check=True, capture_output=True)
    mosquitto = Mosquitto(tmp_path, *(line.format(users) for line in WITH_PASSWORD))
    yield mosquitto
    mosquitto.end()


def start_devices(directory: Path, port: int) -> Process:
    (directory / "password").write_text("s3cret\n")
    command = [sys.executable, "-m", "bridge", "devices", "--url", f"mqtt://127.0.0.1:{port}", "--rate", "100"]
    login = ["--username", "devices", "--password-file", str(directory / "password")]
    return Process([*command, *login], directory / "devices.log")


def test_a_readings_row_can_be_found_by_its_number() -> None:
    topic, payload = reading(6)

    assert topic == "devices/BK07/rooms/6/telemetry"
    assert set(json.loads(payload)) == {"temperature"}


def test_devices_publish_with_a_password_until_stopped_and_survive_a_broker_restart(
    broker: Mosquitto, tmp_path: Path
) -> None:
    devices = start_devices(tmp_path, broker.port)
    try:
        wait_for(lambda: broker.text().count("Received PUBLISH") > 20, what="readings")
        broker.terminate()
        before = broker.text().count("Received PUBLISH")
        again = Mosquitto(tmp_path, *(line.format(tmp_path / "users") for line in WITH_PASSWORD), port=broker.port)
        try:
            wait_for(lambda: again.text().count("Received PUBLISH") > before + 20, what="readings after its return")
            code = devices.terminate()
        finally:
            again.end()
    finally:
        devices.end()

    last = devices.text().splitlines()[-1]
    found = re.fullmatch(r"devices: published (\d+), acknowledged (\d+); stopped", last)
    assert code == 0
    assert found is not None, last
    assert 20 < int(found[2]) <= int(found[1]) <= int(found[2]) + 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--url", "http://x"], "--url: must start with mqtt://"),
        (["--url", "wss://x"], "--url: the simulated devices don't use WebSocket"),
        (["--password-file", "/nowhere/password"], "--password-file: /nowhere/password can't be read"),
        (["--url", "mqtts://x", "--ca-file", "/nowhere/ca"], "the TLS files can't be used"),
    ],
)
def test_wrong_arguments_are_reported(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "devices", *arguments], capture_output=True, text=True, check=False
    )

    assert done.returncode == 78
    assert says in done.stderr
    assert "Traceback" not in done.stderr
