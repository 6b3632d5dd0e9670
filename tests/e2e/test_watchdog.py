"""A daemon that stops working is detected, logged and ended. The tests shorten its limits before it starts."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.local.broker import free_port
from tests.conftest import API_KEY, Bridge, LocalGdn, Mosquitto, Process, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]

PREAMBLE = """
import sys, threading
from bridge.service import supervisor
from bridge.path import pipeline
from bridge.cli import main
from bridge.outbox import Outbox
from bridge.timing import Pace

def never_returns(*_, **__):
    threading.Event().wait()

def fails(*_, **__):
    raise RuntimeError('a bug')

"""


def start(bridge: Bridge, **changes: str) -> Process:
    """Start the daemon with names in its modules replaced by the given Python expressions."""
    lines = "\n".join(f"{name.replace('__', '.')} = {value}" for name, value in changes.items())
    command = [sys.executable, "-c", f"{PREAMBLE}{lines}\nsys.exit(main(['run']))"]
    bridge.process = Process(command, bridge.directory / "bridge.log", env=bridge.environment())
    return bridge.process


def events(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.text().splitlines()]


def event(process: Process, name: str) -> dict[str, Any]:
    return next((entry for entry in events(process) if entry["event"] == name), {})


def test_a_clock_that_is_not_set_is_reported_at_the_start(offline: Bridge) -> None:
    process = start(offline, pipeline__time__time="lambda: 60.0")

    wait_for(lambda: event(process, "daemon.started"), what="the start")

    assert event(process, "clock.not_set")["seconds_since_1970"] == 60
    assert process.terminate() == 0


@pytest.fixture
def offline(make_bridge: MakeBridge) -> Bridge:
    return make_bridge(mqtt_port=free_port(), gdn_url=f"http://127.0.0.1:{free_port()}", BRIDGE_STOP_TIMEOUT="1")


def test_a_bridge_that_was_stopped_and_continued_does_not_count_as_stuck(offline: Bridge) -> None:
    process = start(offline, supervisor__TICK="0.1", supervisor__PIPELINE_LIMIT="2.0")
    wait_for(lambda: offline.get("/livez")[0] == 200, what="the bridge")

    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: offline.get("/livez")[0] == 200, what="its answer")

    assert process.terminate() == 0
    assert event(process, "thread.stuck") == {}


def test_a_stuck_data_path_ends_the_daemon_and_its_stack_is_logged(offline: Bridge) -> None:
    process = start(
        offline, supervisor__TICK="0.1", supervisor__PIPELINE_LIMIT="1.0", pipeline__Pipeline__turn="never_returns"
    )

    assert process.wait(20) == 1
    stuck = event(process, "thread.stuck")
    assert (stuck["thread"], stuck["level"]) == ("pipeline", "error")
    assert "never_returns" in stuck["stack"]
    assert event(process, "daemon.stopping")["reason"] == "stuck: pipeline"


def test_a_stop_that_hangs_is_ended_by_the_watchdog(offline: Bridge) -> None:
    process = start(offline, supervisor__TICK="0.1", supervisor__STOP_GRACE="0.5", Outbox__close="never_returns")
    wait_for(lambda: offline.get("/livez")[0] == 200, what="the bridge")

    assert process.terminate() == 1
    assert events(process)[-1]["event"] == "daemon.hung"


def test_a_thread_that_dies_during_the_stop_changes_the_exit_code(offline: Bridge) -> None:
    process = start(offline, pipeline__Pipeline___finish="fails")
    wait_for(lambda: offline.get("/livez")[0] == 200, what="the bridge")

    assert process.terminate() == 1
    assert event(process, "daemon.stopping")["reason"] == "SIGTERM"
    assert event(process, "thread.died")["thread"] == "pipeline"


def test_a_stuck_daemon_ends_even_if_its_log_is_blocked(offline: Bridge) -> None:
    """A stuck thread may hold the log's lock: it may be writing to a pipe that nobody reads."""
    process = start(
        offline,
        supervisor__TICK="0.1",
        supervisor__PIPELINE_LIMIT="1.0",
        supervisor__STOP_GRACE="0.5",
        pipeline__Pipeline__turn="never_returns",
        supervisor__log__error="never_returns",
    )

    assert process.wait(20) == 1
    assert {"daemon.started"} == {entry["event"] for entry in events(process)} & {"daemon.started", "daemon.stopping"}


def test_a_key_corrected_in_its_file_is_used_without_a_restart(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("acme.testkey.wr0ngvalue")
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_GDN__API_KEY_FILE=str(key))
    del bridge.settings["BRIDGE_GDN__API_KEY"]
    process = start(bridge, Pace__CREDENTIALS__base="0.1", Pace__CREDENTIALS__floor="0.1", Pace__CREDENTIALS__cap="0.5")
    wait_for(lambda: "401" in (bridge.part("worker")["error"] or ""), what="the refusal")

    key.unlink()
    wait_for(lambda: event(process, "credentials.unreadable"), what="the warning")
    key.write_text(API_KEY)
    bridge.wait_ready()

    assert process.terminate() == 0
    assert API_KEY not in process.text()
    assert "wr0ngvalue" not in process.text()
