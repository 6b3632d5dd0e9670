"""SIGHUP: the daemon takes up changed routes and keeps its connection to the broker."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import API_KEY, Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

WORKER = """\
@App:name('reloaded')
@App:qlVersion("2")
CREATE STREAM first (deviceID string, value double);
CREATE STREAM second (deviceID string, value double);
CREATE TABLE GLOBAL firsts (deviceID string, value double);
CREATE TABLE GLOBAL seconds (deviceID string, value double);
INSERT INTO firsts SELECT deviceID, value FROM first;
INSERT INTO seconds SELECT deviceID, value FROM second;
"""


class Reloadable(Bridge):
    """A bridge whose settings are in a file that the test rewrites."""

    def __init__(self, directory: Path, **arguments: Any) -> None:
        super().__init__(directory, **arguments)
        self.file = directory / "bridge.toml"
        self.key = directory / "api_key"
        self.worker = directory / "worker.sql"
        self.worker.write_text(WORKER)
        self.key.write_text(API_KEY)
        for name in ("ROUTES", "GDN__API_KEY"):
            del self.settings[f"BRIDGE_{name}"]
        self.settings["BRIDGE_GDN__API_KEY_FILE"] = str(self.key)
        self.settings["BRIDGE_WORKER__DEFINITION"] = str(self.worker)
        self.write(first="one/{deviceID}")

    def write(self, *lines: str, **topics: str) -> None:
        """Routes by stream, after other lines."""
        tables = [f'[[routes]]\ntopic = "{topic}"\nstream = "{stream}"' for stream, topic in topics.items()]
        self.file.write_text("\n".join([*lines, *tables]) + "\n")

    def start(self) -> Process:
        command = [sys.executable, "-m", "bridge", "run", "--config", str(self.file)]
        self.process = Process(command, self.directory / "bridge.log", env=self.environment())
        return self.process

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of that event."""
        assert self.process is not None
        lines = [line for line in self.process.text().splitlines() if f'"event":"{name}"' in line]
        return [json.loads(line) for line in lines]

    def reload(self) -> dict[str, Any]:
        """Send SIGHUP; returns the log line with the result."""
        assert self.process is not None

        def outcomes() -> list[dict[str, Any]]:
            return [*self.events("daemon.reloaded"), *self.events("daemon.reload_refused")]

        before = outcomes()
        os.kill(self.process.pid, signal.SIGHUP)
        wait_for(lambda: len(outcomes()) > len(before), what="the reload")
        (outcome,) = [line for line in outcomes() if line not in before]
        return outcome


@pytest.fixture
def bridge(mosquitto: Mosquitto, gdn: LocalGdn, tmp_path: Path) -> Iterator[Reloadable]:
    bridge = Reloadable(tmp_path, mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.start()
    bridge.wait_ready()
    yield bridge
    assert bridge.process is not None
    bridge.process.end()


def messages(topic: str, count: int, first: int = 0) -> list[tuple[str, bytes]]:
    return [(topic.format(n), b'{"value": %d}' % n) for n in range(first, first + count)]


def values(gdn: LocalGdn, table: str) -> list[int]:
    return sorted(int(value) for value in gdn.query(f"FOR d IN {table} RETURN d.value"))


def connections(bridge: Reloadable) -> int:
    return len(bridge.events("mqtt.subscribed"))


def test_a_reload_under_load_loses_no_message_and_keeps_the_link(
    bridge: Reloadable, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    enough = threading.Event()
    published = 0

    def publish() -> None:
        nonlocal published
        while not enough.is_set():
            publish_all(mosquitto.port, messages("one/d{}", 200, first=published))
            published += 200

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for number in range(10):
            # The topic moves from one filter to another: the subscription itself changes while messages arrive.
            bridge.write(first="+/{deviceID}" if number % 2 else "one/{deviceID}", second=f"two/{number}/{{deviceID}}")
            assert bridge.reload()["event"] == "daemon.reloaded"
    finally:
        enough.set()
        publisher.join()
    wait_for(lambda: bridge.books()["received"] >= published, seconds=60, what=f"all {published} messages")
    wait_for(lambda: bridge.books()["outbox"] == 0, seconds=60, what="an empty outbox")

    # A row comes out later than its receipt.
    wait_for(lambda: len(set(values(gdn, "firsts"))) >= published, what="the rows")
    assert set(values(gdn, "firsts")) == set(range(published))
    assert bridge.books()["balanced"]
    assert bridge.books()["dead_lettered"] == 0
    assert connections(bridge) == 1
    assert bridge.events("mqtt.lost") == []


def test_a_new_route_is_subscribed_and_its_stream_gets_a_sender(
    bridge: Reloadable, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    bridge.write(first="one/{deviceID}", second="two/{deviceID}")

    assert bridge.reload()["filters"] == ["one/+", "two/+"]
    wait_for(lambda: bridge.part("producer second")["state"] == "connected", what="the second producer")
    publish_all(mosquitto.port, messages("two/d{}", 5))
    wait_for(lambda: values(gdn, "seconds") == list(range(5)), what="the rows")

    assert connections(bridge) == 1
    assert bridge.readiness()["ready"]


def test_a_removed_route_is_unsubscribed_and_its_stored_rows_are_still_sent(
    bridge: Reloadable, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    publish_all(mosquitto.port, messages("one/d{}", 3))
    bridge.write(second="two/{deviceID}")
    bridge.reload()
    bridge.write(second="two/{deviceID}", first="three/{deviceID}")
    bridge.reload()

    publish_all(mosquitto.port, [*messages("one/d{}", 3, 100), *messages("three/d{}", 3, 200)])
    wait_for(lambda: values(gdn, "firsts") == [0, 1, 2, 200, 201, 202], what="the rows of the routes")

    assert bridge.books()["received"] == 6, "nothing arrived on the old topic"


def test_invalid_settings_change_nothing_and_each_error_is_logged(
    bridge: Reloadable, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    bridge.write("stop_timeout = 0", first="one/{deviceID}", nowhere="two/{deviceID}")
    refused = bridge.reload()
    assert refused["event"] == "daemon.reload_refused"
    assert "stop_timeout" in str(refused["problems"])

    bridge.write(first="one/{deviceID", nowhere="two/{deviceID}")
    problems = str(bridge.reload()["problems"])
    assert "routes[0].topic" in problems
    assert "'nowhere'" in problems

    bridge.file.unlink()
    assert bridge.reload()["event"] == "daemon.reload_refused"
    publish_all(mosquitto.port, messages("one/d{}", 3))
    wait_for(lambda: values(gdn, "firsts") == [0, 1, 2], what="rows by the unchanged routes")
    assert connections(bridge) == 1


def test_changes_that_need_a_restart_are_named_and_changed_routes_take_effect_anyway(bridge: Reloadable) -> None:
    bridge.worker.write_text(WORKER.replace("value double", "value double, unit string"))
    bridge.write(
        "stop_timeout = 20", '[outbox]\npath = "elsewhere.db"\n[mqtt]\nclient_id = "other"', first="other/{deviceID}"
    )

    assert bridge.reload()["filters"] == ["other/+"]

    (warning,) = bridge.events("daemon.restart_needed")
    # outbox.path is set in the environment, which overrides the file
    assert warning["settings"] == ["mqtt.client_id", "stop_timeout", "worker.definition (the file's text)"]


def test_routes_that_fit_only_a_definition_not_yet_in_use_are_refused(bridge: Reloadable) -> None:
    bridge.worker.write_text(WORKER + "CREATE STREAM third (deviceID string); INSERT INTO firsts SELECT * FROM third;")
    bridge.write(third="three/{deviceID}")

    problems = str(bridge.reload()["problems"])

    assert "no such stream" in problems
    assert "need a restart: worker.definition (the file's text)" in problems


def test_a_changed_log_level_takes_effect(bridge: Reloadable) -> None:
    bridge.write('[log]\nlevel = "error"', first="one/{deviceID}", second="two/{deviceID}")
    assert bridge.process is not None
    os.kill(bridge.process.pid, signal.SIGHUP)
    wait_for(lambda: bridge.part("producer second")["state"] == "connected", what="the second producer")

    assert bridge.events("daemon.reloaded") == [], "not an error"


def test_a_replaced_key_is_used_for_the_next_request(bridge: Reloadable, gdn: LocalGdn) -> None:
    bridge.key.write_text("acme.wrong.key")
    bridge.reload()

    wait_for(lambda: "401" in str(bridge.part("query")["error"]), what="GDN to refuse the new key")
    assert len(bridge.events("credentials.changed")) == 1


def test_sighup_while_the_bridge_waits_for_its_outbox_does_not_stop_it(bridge: Reloadable) -> None:
    assert bridge.process is not None
    bridge.process.terminate()
    blocker = sqlite3.connect(bridge.settings["BRIDGE_OUTBOX__PATH"], isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    process = bridge.start()
    wait_for(lambda: bridge.events("outbox.unavailable"), what="the lock to be noticed")

    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: bridge.events("daemon.not_reloaded"), what="the signal to be noticed")
    blocker.execute("ROLLBACK")
    blocker.close()

    bridge.wait_ready()
    assert process.terminate() == 0


def test_ten_thousand_routes_are_started_and_reloaded_and_sigterm_ends_the_bridge(
    bridge: Reloadable, mosquitto: Mosquitto, gdn: LocalGdn
) -> None:
    bridge.write(*(f'[[routes]]\ntopic = "site{n}/{{deviceID}}"\nstream = "first"' for n in range(10_000)))
    assert bridge.reload()["event"] == "daemon.reloaded"
    assert bridge.process is not None
    assert bridge.process.terminate() == 0
    process = bridge.start()
    wait_for(lambda: bridge.readiness()["ready"], seconds=90, what="readiness")

    publish_all(mosquitto.port, messages("site9999/d{}", 1, first=7))
    wait_for(lambda: values(gdn, "firsts") == [7], what="the row")

    assert process.terminate() == 0
