"""The command line, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.local.broker import Embedded, free_port
from tests.conftest import API_KEY, Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]


@pytest.fixture
def offline(make_bridge: MakeBridge) -> Bridge:
    return make_bridge(mqtt_port=1, gdn_url="http://127.0.0.1:1")


@pytest.fixture
def embedded() -> Iterator[Embedded]:
    broker = Embedded()
    yield broker
    broker.stop()


def test_the_demonstration_ends_balanced_and_prints_one_json_object() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bridge", "demo", "--seconds", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert set(result) == {
        *("published", "received", "delivered", "outbox", "dead_lettered", "dropped", "rows", "balanced"),
    }
    assert result["balanced"] is True
    assert result["published"] > 300


def test_the_demonstration_works_with_the_embedded_broker(
    embedded: Embedded, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=embedded.port, gdn_url=gdn.url, BRIDGE_MQTT__PROTOCOL=embedded.protocol)
    bridge.start()
    bridge.wait_ready()

    publish_all(
        embedded.port, [(f"devices/A/rooms/{n}/telemetry", b'{"temperature":1}') for n in range(500)], window=50
    )
    wait_for(lambda: gdn.count() == 500, what="500 rows")


def test_verbs_cover_the_last_steps_of_the_tutorial(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    assert "doesn't exist" in bridge.cli("worker", "status").stdout
    process = bridge.start()
    bridge.wait_ready()
    publish_all(mosquitto.port, [("devices/AD11/rooms/200/telemetry", b'{"temperature":18}')])
    wait_for(lambda: gdn.count() == 1, what="the row")
    process.terminate()

    status = json.loads(bridge.cli("worker", "status", "--json").stdout)
    assert (status["active"], status["definition"]) == (True, "same")
    (row,) = json.loads(bridge.cli("query", "FOR doc IN tutorialAppOutputTable RETURN doc", "--json").stdout)
    assert (row["id"], row["temperature"]) == ("200-AD11", 18)
    assert "deleted" in bridge.cli("worker", "delete").stdout
    assert "doesn't exist" in bridge.cli("worker", "delete").stdout


def test_check_accepts_the_shipped_example(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bridge", "check", "--config", "config/bridge.toml"],
        env={"PATH": "/usr/bin", "BRIDGE_GDN__API_KEY": API_KEY},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "no problems found" in ended.stdout


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BRIDGE_WORKER__DEFINITION", "/nowhere/worker.sql", "BRIDGE_WORKER__DEFINITION"),
        ("BRIDGE_MQTT__URL", "http://x", "BRIDGE_MQTT__URL"),
        ("BRIDGE_MQTT__PROT", "5", "BRIDGE_MQTT__PROTOCOL"),
        ("BRIDGE_ROUTES", "[{", "BRIDGE_ROUTES"),
        (
            "BRIDGE_ROUTES",
            '[{"topic": "a/#/b", "stream": "tutorialAppInput"}]',
            "did you mean 'tutorialAppInputStream'",
        ),
        ("BRIDGE_GDN__API_KEY", "", "BRIDGE_GDN__API_KEY"),
        ("BRIDGE_OUTBOX__PATH", "/proc/nothing/outbox.db", "BRIDGE_OUTBOX__PATH"),
        ("BRIDGE_STATUS__LISTEN", "256.0.0.1:99999", "BRIDGE_STATUS__LISTEN"),
        (
            "BRIDGE_OUTBOX__SHARES__tutorialAppInput",
            "0.5",
            "BRIDGE_OUTBOX__SHARES__tutorialAppInput: 'tutorialAppInput': the worker reads no such stream; "
            "did you mean 'tutorialAppInputStream'?",
        ),
    ],
)
def test_wrong_settings_end_with_78_and_a_message(offline: Bridge, variable: str, value: str, says: str) -> None:
    offline.settings[variable] = value

    ended = offline.cli("run")

    assert ended.returncode == 78, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert API_KEY not in ended.stderr


@pytest.mark.parametrize(
    "verb", [["check"], ["check", "--json"], ["run"], ["deadletter", "list"], ["deadletter", "purge", "--all"]]
)
def test_an_outbox_path_that_names_a_file_of_somebody_else_ends_with_78(
    offline: Bridge, tmp_path: Path, verb: list[str]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not to be lost")
    before = sorted(tmp_path.iterdir())

    ended = offline.cli(*verb, "--set", f"outbox.path={notes}")

    assert ended.returncode == 78
    assert f"outbox.path, on the command line: {notes} exists and is not an outbox" in ended.stdout + ended.stderr
    assert notes.read_text() == "not to be lost"
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_definition_is_reported_with_line_and_column(offline: Bridge, tmp_path: Path) -> None:
    definition = tmp_path / "broken.sql"
    definition.write_text("@App:name('x')\n@App:qlVersion(\"2\")\nCREAT STREAM s (a int);\n")
    offline.settings["BRIDGE_WORKER__DEFINITION"] = str(definition)

    ended = offline.cli("check")

    assert ended.returncode == 78
    assert f"{definition}:3:1: " in ended.stderr
    assert "CREATE" in ended.stderr


def test_a_gdn_that_cant_be_reached_ends_a_verb_with_69(offline: Bridge) -> None:
    ended = offline.cli("query", "RETURN 1")

    assert ended.returncode == 69
    assert "Traceback" not in ended.stderr


def test_errors_of_a_setting_name_the_place_of_its_value(offline: Bridge, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text('[outbox]\npath = "/proc/nothing/outbox.db"\n')
    del offline.settings["BRIDGE_OUTBOX__PATH"]

    for verb in (["run"], ["deadletter", "list"], ["deadletter", "replay"]):
        ended = offline.cli(*verb, "--config", str(file))
        assert ended.returncode == 78, ended.stderr
        assert f"gdn-bridge: {file}:2: outbox.path: /proc/nothing/outbox.db " in ended.stderr


def test_a_route_that_doesnt_fit_names_the_definition(offline: Bridge) -> None:
    offline.settings["BRIDGE_ROUTES"] = '[{"topic": "a", "stream": "elsewhere"}]'

    ended = offline.cli("check")

    assert ended.returncode == 78
    assert f"the definition is {offline.settings['BRIDGE_WORKER__DEFINITION']}" in ended.stderr


def test_shares_that_have_no_effect_are_reported_by_check(offline: Bridge) -> None:
    offline.settings["BRIDGE_OUTBOX__SHARES__tutorialAppInputStream"] = "0.5"

    ended = offline.cli("check")

    assert ended.returncode == 0, ended.stderr
    assert 'BRIDGE_OUTBOX__SHARES: has no effect with outbox.full = "hold"' in ended.stdout
    assert "no errors found" in ended.stdout

    offline.settings["BRIDGE_OUTBOX__FULL"] = "drop_oldest"
    assert "no problems found" in offline.cli("check").stdout


def test_shares_that_leave_nothing_for_other_streams_are_refused(offline: Bridge, tmp_path: Path) -> None:
    definition = tmp_path / "worker.sql"
    definition.write_text(
        "@App:name('x')\n@App:qlVersion(\"2\")\nCREATE STREAM a (n int);\nCREATE STREAM b (n int);\n"
        "CREATE TABLE t (n int);\nINSERT INTO t SELECT n FROM a;\nINSERT INTO t SELECT n FROM b;\n"
    )
    routes = [{"topic": "a", "stream": "a"}, {"topic": "b", "stream": "b"}]
    offline.settings |= {
        "BRIDGE_WORKER__DEFINITION": str(definition),
        "BRIDGE_ROUTES": json.dumps(routes),
        "BRIDGE_OUTBOX__SHARES": '{"a": 1}',
    }

    ended = offline.cli("check")

    assert ended.returncode == 78
    expected = "BRIDGE_OUTBOX__SHARES: divides all of outbox.max_bytes, which leaves nothing for the other streams"
    assert f"{expected} of the routes: b" in ended.stderr


EARLY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from bridge import __main__, signals
block = signals.block
signals.block = lambda: (block(), os.kill(os.getpid(), int(sys.argv.pop())))
sys.exit(__main__.main())
"""
"""The command, which gets a signal before its modules are imported; the signal's number is its last argument."""


def test_ctrl_c_during_the_first_imports_prints_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", EARLY, "check", "2"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (130, "gdn-bridge: interrupted\n")


def test_signals_before_the_first_import_are_followed_by_the_bridge(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(mqtt_port=free_port(), gdn_url=f"http://127.0.0.1:{free_port()}")

    def start(number: int) -> Process:
        command = [sys.executable, "-c", EARLY, "run", str(number)]
        return Process(command, bridge.directory / f"{number}.log", env=bridge.environment())

    stopped = start(signal.SIGTERM)
    try:
        assert stopped.wait(60) == 0
    finally:
        stopped.end()
    reloaded = start(signal.SIGHUP)  # after the first has left the outbox
    try:
        wait_for(lambda: "daemon.reloaded" in reloaded.text(), seconds=60, what="the reload")
        assert reloaded.terminate() == 0
    finally:
        reloaded.end()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 1, "gdn-bridge: the demonstration was aborted: interrupted\n"),
        (signal.SIGHUP, 1, "gdn-bridge: the demonstration was aborted: SIGHUP\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_a_demonstration_that_is_ended_leaves_nothing_behind(number: int, code: int, says: str, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert demo.stdout is not None
    while "the bridge is ready" not in demo.stdout.readline():
        assert demo.poll() is None
    children = [int(pid) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()]
    demo.send_signal(number)
    _, error = demo.communicate(timeout=60)

    assert (error, demo.returncode) == (says, code)
    assert len(children) == 4
    wait_for(lambda: not any(map(_runs, children)), what="the end of the children")
    assert list(tmp_path.iterdir()) == []


def test_set_overrides_every_other_source(offline: Bridge) -> None:
    ended = offline.cli("check", "--set", "mqtt.url=nonsense://x")

    assert ended.returncode == 78
    assert "mqtt.url" in ended.stderr or "BRIDGE_MQTT__URL" in ended.stderr


def test_a_port_in_use_is_reported_by_the_local_gdn(gdn: LocalGdn) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bridge", "local-gdn", "--port", str(gdn.port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
