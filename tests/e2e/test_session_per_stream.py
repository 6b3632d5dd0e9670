"""A session for each stream, with a real broker: isolation, and the exchange of the sessions in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.e2e.test_reload import Reloadable, messages, values
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]

DEFINITION = """@App:name('w') @App:qlVersion("2")
CREATE STREAM meters (n long, text string);
CREATE STREAM alarms (n long);
CREATE TABLE GLOBAL meterTable (n long, text string);
CREATE TABLE GLOBAL alarmTable (n long);
INSERT INTO meterTable SELECT n, text FROM meters;
INSERT INTO alarmTable SELECT n FROM alarms;
"""
ROUTES = [{"topic": "meters/+", "stream": "meters"}, {"topic": "alarms/+", "stream": "alarms"}]


def make(make_bridge: MakeBridge, tmp_path: Path, port: int, gdn_url: str, *, per_stream: bool) -> Bridge:
    definition = tmp_path / "worker.sql"
    definition.write_text(DEFINITION)
    return make_bridge(
        mqtt_port=port,
        gdn_url=gdn_url,
        BRIDGE_WORKER__DEFINITION=str(definition),
        BRIDGE_ROUTES=json.dumps(ROUTES),
        BRIDGE_MQTT__SESSION_PER_STREAM=str(per_stream).lower(),
        BRIDGE_OUTBOX__MAX_BYTES=str(1 << 20),
        BRIDGE_OUTBOX__SHARES__meters="0.3",
    )


def publish(port: int, kind: str, numbers: range, text: str = "") -> None:
    publish_all(port, [(f"{kind}/1", json.dumps({"n": n, "text": text}).encode()) for n in numbers])


def links(bridge: Bridge) -> dict[str, str]:
    return {part["name"]: part["state"] for part in bridge.readiness()["parts"] if part["name"].startswith("mqtt")}


def wait_links(bridge: Bridge, *names: str) -> None:
    wait_for(lambda: links(bridge) == dict.fromkeys(names, "connected"), seconds=60, what=f"the links {names}")


def stored(gdn: LocalGdn, table: str) -> set[int]:
    return set(gdn.query(f"FOR d IN {table} RETURN d.n"))


def test_a_stream_that_fills_its_share_waits_at_the_broker_and_the_other_is_received(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    gdn_port = free_port()
    bridge = make(make_bridge, tmp_path, mosquitto.port, f"http://127.0.0.1:{gdn_port}", per_stream=True)
    bridge.start()
    wait_links(bridge, "mqtt meters", "mqtt alarms")

    publish(mosquitto.port, "meters", range(2000), "x" * 300)
    wait_for(lambda: links(bridge).get("mqtt meters") == "waiting", what="the hold of one session")
    assert "(outbox.shares): meters" in bridge.part("mqtt meters")["error"]
    before = bridge.books()["received"]
    publish(mosquitto.port, "alarms", range(100))
    wait_for(lambda: bridge.books()["received"] == before + 100, what="the other stream's messages")
    assert links(bridge) == {"mqtt meters": "waiting", "mqtt alarms": "connected"}
    assert before < 2000

    gdn = LocalGdn(tmp_path, gdn_port)
    try:
        wait_for(lambda: len(stored(gdn, "meterTable")) == 2000, seconds=90, what="all rows")
        assert stored(gdn, "alarmTable") == set(range(100))
        wait_for(lambda: bridge.books()["outbox"] == 0, what="an empty outbox")
        assert bridge.books()["dropped"] == 0
        assert bridge.books()["balanced"]
    finally:
        gdn.end()


def test_sessions_are_exchanged_without_loss_in_both_directions(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make(make_bridge, tmp_path, mosquitto.port, gdn.url, per_stream=False)
    process = bridge.start()
    wait_links(bridge, "mqtt")
    process.terminate()
    publish(mosquitto.port, "meters", range(50))

    bridge.settings["BRIDGE_MQTT__SESSION_PER_STREAM"] = "true"
    process = bridge.start()
    wait_links(bridge, "mqtt meters", "mqtt alarms")
    assert '"mqtt.session_retired"' in process.text()
    publish(mosquitto.port, "meters", range(50, 60))
    wait_for(lambda: stored(gdn, "meterTable") == set(range(60)), what="what the old session held, and new messages")
    process.terminate()
    publish(mosquitto.port, "meters", range(60, 100))
    publish(mosquitto.port, "alarms", range(20))

    bridge.settings["BRIDGE_MQTT__SESSION_PER_STREAM"] = "false"
    process = bridge.start()
    wait_links(bridge, "mqtt")
    publish(mosquitto.port, "alarms", range(20, 30))
    wait_for(lambda: stored(gdn, "meterTable") == set(range(100)), what="what the streams' sessions held")
    wait_for(lambda: stored(gdn, "alarmTable") == set(range(30)), what="both kinds")
    assert bridge.books()["received"] == 130, "sessions that are quiet when they are exchanged cause no duplicates"
    assert process.text().count('"mqtt.session_retired"') == 1 + 2, "of both starts"


def test_a_reload_begins_a_session_for_a_new_stream_and_leaves_that_of_a_removed_one(
    mosquitto: Mosquitto, gdn: LocalGdn, tmp_path: Path
) -> None:
    bridge = Reloadable(tmp_path, mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_MQTT__SESSION_PER_STREAM="true")
    process = bridge.start()
    try:
        wait_links(bridge, "mqtt first")
        bridge.write(second="two/{deviceID}")
        assert bridge.reload()["event"] == "daemon.reloaded"

        wait_links(bridge, "mqtt second")
        publish_all(mosquitto.port, [*messages("one/d{}", 3), *messages("two/d{}", 3, 100)])
        wait_for(lambda: values(gdn, "seconds") == [100, 101, 102], what="the rows of the new stream")
        assert bridge.books()["received"] == 3, "nothing arrived on the old topic"
    finally:
        process.end()
