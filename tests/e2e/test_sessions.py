"""The MQTT session: lost by the broker, taken over by a second bridge, with subscriptions of an earlier configuration;
messages that the broker dropped. Also a clock that is set while the bridge runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.local.broker import free_port
from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.e2e.test_daemon import readings, wait_delivered
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]


def broker_says(bridge: Bridge) -> dict[str, Any]:
    return dict(bridge.readiness().get("broker") or {})


def test_a_session_that_the_broker_lost_is_counted_and_logged(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()
    assert broker_says(bridge)["sessions_lost"] == 0, "the first connection finds no session, which is not a loss"

    mosquitto.kill()  # without persistence: the session is gone
    directory = tmp_path / "again"
    directory.mkdir()
    again = Mosquitto(directory, port=mosquitto.port)
    try:
        wait_for(lambda: broker_says(bridge)["sessions_lost"] == 1, what="the loss to be counted")

        assert '"mqtt.session_lost"' in process.text()
        assert "gdn_bridge_sessions_lost_total 1.0" in bridge.get("/metrics")[1]
        process.terminate()
        bridge.start()
        bridge.wait_ready()
        assert broker_says(bridge)["sessions_lost"] == 1, (
            "the counter is durable, and a kept session doesn't increase it"
        )
    finally:
        again.end()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_bridges_with_one_client_id_report_it_and_slow_down(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path, protocol: str
) -> None:
    settings = {"mqtt_port": mosquitto.port, "gdn_url": gdn.url, "BRIDGE_MQTT__PROTOCOL": protocol}
    first = make_bridge(**settings)
    twin = make_bridge(
        **settings,
        BRIDGE_OUTBOX__PATH=str(tmp_path / "twin.db"),
        BRIDGE_STATUS__LISTEN=f"127.0.0.1:{free_port()}",
    )
    twin.directory = tmp_path / "twin"
    twin.directory.mkdir()
    first.start()
    first.wait_subscribed()

    twin.start()
    processes = [b.process for b in (first, twin) if b.process is not None]
    wait_for(
        lambda: any("with the same client id" in p.text() for p in processes),
        seconds=60,
        what="the twin to be suspected",
    )

    def connects() -> int:
        return sum(p.text().count('"mqtt.subscribed"') for p in processes)

    before = connects()
    time.sleep(5)
    assert connects() - before <= 3, "they must not take over from each other many times a second"


def test_a_subscription_of_an_earlier_configuration_is_removed(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    routes = [{"topic": "devices/{deviceID}/rooms/{roomNo}/telemetry", "stream": "tutorialAppInputStream"}]
    old = [*routes, {"topic": "old/{deviceID}/{roomNo}", "stream": "tutorialAppInputStream"}]
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_ROUTES=json.dumps(old))
    process = bridge.start()
    bridge.wait_ready()
    process.terminate()

    bridge.settings["BRIDGE_ROUTES"] = json.dumps(routes)
    bridge.start()
    bridge.wait_ready()
    time.sleep(0.5)  # the UNSUBACK
    publish_all(mosquitto.port, [("old/AD11/1", b'{"temperature": 1}'), *readings(5)])
    wait_delivered(bridge, gdn, 5)

    assert bridge.books()["received"] == 5, "nothing arrived on the old topic"


def test_messages_that_the_broker_dropped_are_shown(gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    mosquitto = Mosquitto(
        directory, "allow_anonymous true", "sys_interval 1", "max_queued_messages 10", "max_inflight_messages 5"
    )
    try:
        bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
        bridge.start()
        bridge.wait_ready()
        assert bridge.process is not None
        bridge.process.terminate()
        publish_all(mosquitto.port, readings(100))
        bridge.start()

        wait_for(lambda: (broker_says(bridge).get("messages_dropped") or 0) >= 80, what="the broker's counter")

        assert "gdn_bridge_broker_dropped" in bridge.get("/metrics")[1]
    finally:
        mosquitto.end()


LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)


@pytest.mark.parametrize("step", ["-3d", "+3d"])
def test_setting_the_clock_while_the_bridge_runs_drops_and_delays_nothing(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path, step: str
) -> None:
    library = next((path for path in LIBRARIES if Path(path).exists()), None)
    if library is None:
        if os.environ.get("CI"):
            pytest.fail("libfaketime is not installed, and in CI it must be")
        pytest.skip("libfaketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    port = free_port()
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=f"http://127.0.0.1:{port}",
        BRIDGE_OUTBOX__MAX_AGE="3600",
        BRIDGE_OUTBOX__FULL="drop_oldest",
    )
    environment = {
        **bridge.environment(),
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    real = bridge.environment
    bridge.environment = lambda: environment  # type: ignore[method-assign]
    process = bridge.start()
    bridge.environment = real  # type: ignore[method-assign]
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(100))
    wait_for(lambda: bridge.books().get("outbox") == 100, what="the records")
    year_before = bridge.part("mqtt")["since"]

    clock.write_text(step)
    publish_all(mosquitto.port, [(t.replace("AD11", "AD12"), p) for t, p in readings(100)])
    gdn = LocalGdn(tmp_path, port=port)
    try:
        begun = time.monotonic()
        wait_for(lambda: gdn.count() == 200, seconds=60, what="all rows")

        assert time.monotonic() - begun < 45
        assert bridge.books()["dropped"] == 0
        assert bridge.books()["balanced"]
        last = json.loads(process.text().splitlines()[-1])
        assert last["timestamp"][:10] != year_before[:10], "the clock really was set"
    finally:
        gdn.end()
