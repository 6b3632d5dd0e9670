"""The command ``deadletter`` with and without a running bridge, on a real broker, the local GDN and real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.local.broker import free_port
from bridge.message import DeadLetter
from bridge.outbox import Commit, DeadLetterClient, Outbox, Selection
from tests.conftest import TABLE, Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]
TOPIC = "devices/{deviceID}/rooms/{roomNo}/telemetry"


def mend(bridge: Bridge) -> None:
    """Make the route use the field that the messages have."""
    route = {"topic": TOPIC, "stream": "tutorialAppInputStream", "fields": {"temperature": "temp"}}
    bridge.settings["BRIDGE_ROUTES"] = json.dumps([route])


def publish(mosquitto: Mosquitto, count: int, first: int = 0) -> None:
    messages = [
        (f"devices/AD11/rooms/{n}/telemetry", b'{"temp": %d.5}' % (n % 40)) for n in range(first, first + count)
    ]
    publish_all(mosquitto.port, messages)


def listed(bridge: Bridge, *selection: str) -> list[dict[str, Any]]:
    ended = bridge.cli("deadletter", "list", "--json", *selection)
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout))


def wait_dead_lettered(bridge: Bridge, count: int) -> None:
    wait_for(lambda: bridge.books().get("dead_lettered") == count, what=f"{count} dead letters")


def ids(gdn: LocalGdn) -> list[str]:
    return sorted(gdn.query(f"FOR d IN {TABLE} RETURN d.id"))


@pytest.fixture
def offline(make_bridge: MakeBridge) -> Bridge:
    """A stopped bridge with dead letters in its outbox."""
    bridge = make_bridge(mqtt_port=1, gdn_url="http://127.0.0.1:1")
    outbox = Outbox(Path(bridge.settings["BRIDGE_OUTBOX__PATH"]))
    outbox.open()
    for n in range(6):
        reason, payload = ("missing_field", b'{"temp": %d}' % n) if n % 2 else ("not_json", b"\x1b[2J\xff")
        topic = f"devices/AD11/rooms/{n}/telemetry"
        outbox.commit(
            Commit(dead_letters=[DeadLetter(topic, payload, 1, time.time_ns(), TOPIC, reason, "why \x1b[31m")])
        )
    outbox.close()
    return bridge


def test_bad_messages_become_rows_exactly_once_after_the_route_is_fixed(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    count = 700
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    publish(mosquitto, count)
    publish_all(mosquitto.port, [("devices/AD11/rooms/1/telemetry", b"no json")])
    wait_dead_lettered(bridge, count + 1)
    assert [row["reason"] for row in listed(bridge, "--limit", "2")] == ["missing_field"] * 2
    (other,) = listed(bridge, "--reason", "not_json")
    assert "no json" in bridge.cli("deadletter", "show", str(other["id"])).stdout
    assert process.terminate() == 0

    mend(bridge)
    dry = bridge.cli("deadletter", "replay", "--dry-run")
    assert f"would replay {count} dead letters as {count} rows" in dry.stdout
    assert "1 would fail again: not_json 1" in dry.stdout
    bridge.start()
    bridge.wait_ready()
    replayed = bridge.cli("deadletter", "replay", "--since", "1h")

    assert replayed.returncode == 0, replayed.stderr
    assert f"{count + 1} dead letters marked" in replayed.stdout
    assert f"replayed {count} dead letters" in replayed.stdout
    assert "1 failed again: not_json 1" in replayed.stdout
    wait_for(lambda: gdn.count() >= count and bridge.books()["outbox"] == 0, what="the rows")
    assert ids(gdn) == sorted(f"{n}-AD11" for n in range(count))
    books = bridge.books()
    assert (books["received"], books["delivered"], books["dead_lettered"]) == (2 * count + 1, count, count + 1)
    assert books["balanced"]
    assert f"gdn_bridge_dead_letters_replayed_total {count}.0" in bridge.get("/metrics")[1]
    assert "gdn_bridge_dead_letters 1.0" in bridge.get("/metrics")[1]
    assert "no dead letters" in bridge.cli("deadletter", "replay", "--reason", "missing_field").stdout

    purged = bridge.cli("deadletter", "purge", "--all")
    assert "purged 1 dead letters" in purged.stdout
    assert listed(bridge) == []
    assert bridge.readiness()["outbox"]["dead_letters"] == 0


def test_a_bridge_killed_during_a_replay_completes_it_after_a_restart(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    count = 3000
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    publish(mosquitto, count)
    wait_dead_lettered(bridge, count)
    process.terminate()
    mend(bridge)
    process = bridge.start()
    bridge.wait_ready()

    assert bridge.cli("deadletter", "replay", "--no-wait").returncode == 0
    wait_for(lambda: "dead_letters.replayed" in process.text(), what="the first of them")
    process.kill()
    bridge.start()

    wait_for(lambda: bridge.readiness().get("outbox", {}).get("dead_letters") == 0, what="the others")
    wait_for(lambda: bridge.books()["outbox"] == 0, what="the delivery")
    # At least once: rows without a receipt when the bridge was killed are sent again.
    wait_for(lambda: len(set(ids(gdn))) == count, what="the rows")
    books = bridge.books()
    assert (books["received"], books["delivered"], books["balanced"]) == (2 * count, count, True)


def test_without_a_bridge_the_command_replays_itself_and_the_next_start_delivers(
    offline: Bridge, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    mend(offline)

    ended = offline.cli("deadletter", "replay")

    assert ended.returncode == 0, ended.stderr
    assert "replayed 3 dead letters\n3 failed again: not_json 3\n" in ended.stdout
    assert {row["reason"] for row in listed(offline)} == {"not_json"}
    offline.settings.update(BRIDGE_MQTT__URL=f"mqtt://127.0.0.1:{mosquitto.port}", BRIDGE_GDN__URL=gdn.url)
    offline.start()
    wait_for(lambda: ids(gdn) == ["1-AD11", "3-AD11", "5-AD11"], what="the rows")
    assert offline.books()["balanced"]


def test_a_replay_waits_while_the_outbox_is_full(mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=url, BRIDGE_OUTBOX__MAX_BYTES=str(1 << 20))
    mend(bridge)
    bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, [("devices/AD11/rooms/7/telemetry", b'{"temperature": 1}')])
    wait_dead_lettered(bridge, 1)
    publish(mosquitto, 12_000, first=1000)
    wait_for(lambda: bridge.readiness()["outbox"]["holding"], what="the hold")
    mend(bridge)

    ended = bridge.cli("deadletter", "purge", "--reason", "no_route")
    assert "no dead letters" in ended.stdout
    waited = bridge.cli("deadletter", "replay")
    assert (waited.returncode, "1 wait: the running bridge" in waited.stdout) == (0, True)
    (row,) = listed(bridge)
    assert row["wanted"] == "replay"

    gdn = LocalGdn(tmp_path, int(url.rpartition(":")[2]))
    try:
        wait_for(lambda: listed(bridge)[0]["wanted"] is None, seconds=90, what="the replay")
        assert bridge.books()["balanced"]
    finally:
        gdn.end()


def test_the_command_stops_waiting_for_a_stuck_bridge(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    publish(mosquitto, 3)
    wait_dead_lettered(bridge, 3)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        ended = bridge.cli("deadletter", "purge", "--all", "--limit", "2")
        assert 5 < time.monotonic() - begun < 30
        assert "2 wait: the running bridge does it as soon as it can" in ended.stdout
        assert len(listed(bridge)) == 3
    finally:
        os.kill(process.pid, signal.SIGCONT)

    wait_for(lambda: [row["id"] for row in listed(bridge)] == [3], what="the purge")


def test_dead_letters_are_exported_to_a_new_file_only_its_owner_can_read(offline: Bridge, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"

    ended = offline.cli("deadletter", "export", "--output", str(file))

    assert (ended.returncode, ended.stdout) == (0, "")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["payload_text"] for line in lines] == [None, '{"temp": 1}', None, '{"temp": 3}', None, '{"temp": 5}']
    assert lines[0]["payload_base64"] == "G1sySv8="
    assert file.stat().st_mode & 0o777 == 0o600
    again = offline.cli("deadletter", "export", "--output", str(file))
    assert (again.returncode, "File exists" in again.stderr) == (78, True)
    printed = offline.cli("deadletter", "export", "--reason", "missing_field", "--limit", "1")
    assert json.loads(printed.stdout) == lines[1]


def test_payloads_cant_control_the_terminal(offline: Bridge) -> None:
    for arguments in (["list"], ["show", "1"], ["list", "--json"], ["show", "1", "--json"], ["export"]):
        ended = offline.cli("deadletter", *arguments)

        assert ended.returncode == 0, ended.stderr
        assert ended.stdout
        assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["purge"], 2, "--all"),
        (["show", "99"], 1, "no dead letter 99"),
        (["list", "--since", "yesterday"], 2, "15m, 2h, 3d"),
        (["list", "--limit", "0"], 2, "must be a whole number from 1"),
        (["list", "--reason", "none_such"], 0, "no dead letters"),
        (["export", "--reason", "none_such"], 0, "no dead letters"),
        (["replay", "--reason", "none_such"], 0, "no dead letters"),
        (["purge", "99"], 0, "no dead letters"),
        (["purge", "--dry-run"], 0, "would purge 6"),
        (["purge", "--dry-run", "--limit", "2"], 0, "would purge 2"),
        (["purge", "1", "2"], 0, "purged 2 dead letters"),
        (["purge", "--all"], 0, "purged 6 dead letters"),
    ],
)
def test_each_answer_has_its_exit_code(offline: Bridge, arguments: list[str], code: int, says: str) -> None:
    ended = offline.cli("deadletter", *arguments)

    assert ended.returncode == code, ended.stderr
    assert says in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_list_shows_a_requested_action_only_if_there_is_one(offline: Bridge) -> None:
    with DeadLetterClient(Path(offline.settings["BRIDGE_OUTBOX__PATH"]), may_mark=True) as client:
        client.mark(Selection(ids=[2]), "purge")

    head, *lines = offline.cli("deadletter", "list").stdout.splitlines()

    assert head.split()[-1] == "wanted"
    assert [line.split()[-1] == "purge" for line in lines] == [False, True, False, False, False, False]
    assert "null" not in "".join(lines)
    assert [row["wanted"] for row in listed(offline)] == [None, "purge", None, None, None, None]


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["replay"], ["purge", "--all"], ["export"]])
def test_a_missing_outbox_is_reported_and_not_created(offline: Bridge, arguments: list[str]) -> None:
    offline.settings["BRIDGE_OUTBOX__PATH"] = str(offline.directory / "none.db")

    ended = offline.cli("deadletter", *arguments)

    assert ended.returncode == 78
    assert "BRIDGE_OUTBOX__PATH" in ended.stderr
    assert not (offline.directory / "none.db").exists()


def test_dead_letters_can_be_listed_while_the_routes_are_invalid(offline: Bridge) -> None:
    offline.settings["BRIDGE_ROUTES"] = json.dumps([{"topic": "a", "stream": "no_such_stream"}])

    assert len(listed(offline)) == 6
    assert offline.cli("deadletter", "replay").returncode == 78
    assert len(listed(offline)) == 6


def test_an_export_ends_quietly_when_its_reader_closes_the_pipe(offline: Bridge) -> None:
    command = f"{sys.executable} -m bridge deadletter export | head -c 1"

    ended = subprocess.run(
        ["sh", "-c", command], env=offline.environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.stdout, "Traceback" in ended.stderr) == ("{", False)
