"""A SIGKILL between commit and PUBACK, with a real broker that redelivers the messages: each is stored once.

All messages are equal, like those of a device that repeats its state: only their order shows which are redelivered.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import paho.mqtt.publish as paho
import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]

READING = ("devices/AD11/rooms/1/telemetry", b'{"temperature": 21}')


def kill_before_acknowledging(bridge: Bridge, kills: int) -> None:
    """Start and kill the bridge that often, each time after a commit whose messages are not acknowledged yet."""
    for kill in range(kills):
        note = bridge.directory / f"kill-{kill}"
        killed = Process(
            [sys.executable, "-m", "tests.faults.killable", "run"],
            bridge.directory / f"killed-{kill}.log",
            env=bridge.environment()
            | {"FAULT_POINT": "before_puback", "FAULT_COUNT": str(1 + kill % 2), "FAULT_NOTE": os.fspath(note)},
        )
        wait_for(note.exists, what="the kill")
        killed.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("deduplicate", [True, False])
def test_messages_redelivered_after_a_kill_are_stored_once(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, protocol: str, deduplicate: bool
) -> None:
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=gdn.url,
        BRIDGE_MQTT__PROTOCOL=protocol,
        BRIDGE_DELIVERY__DEDUPLICATE=str(deduplicate).lower(),
    )
    count, kills = 10_000, 4
    bridge.start()
    bridge.wait_ready()
    assert bridge.process is not None
    bridge.process.terminate()
    publish_all(mosquitto.port, [READING] * count)

    kill_before_acknowledging(bridge, kills)
    bridge.start()
    wait_for(lambda: bridge.books().get("received", 0) >= count, what="every message")
    publish_all(mosquitto.port, [READING] * 10)
    wait_for(lambda: bridge.books()["received"] >= count + 10 and not bridge.books()["outbox"], what="the rest")

    received = bridge.books()["received"]
    print(f"protocol {protocol}, deduplicate={deduplicate}: {received - count - 10} stored twice")
    if deduplicate:
        assert received == count + 10
    else:
        assert received > count + 10, (
            "without deduplication the kills must cause duplicates, else this test proves nothing"
        )


def test_with_qos_2_what_the_broker_hands_over_again_after_a_kill_is_stored_once_without_deduplication(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_MQTT__QOS="2")
    count = 1000
    bridge.start()
    bridge.wait_ready()
    assert bridge.process is not None
    bridge.process.terminate()
    topic, payload = READING
    paho.multiple([{"topic": topic, "payload": payload, "qos": 2}] * count, "127.0.0.1", mosquitto.port)

    kill_before_acknowledging(bridge, 2)
    bridge.start()
    wait_for(lambda: bridge.books().get("received", 0) >= count, what="every message")
    paho.multiple([{"topic": topic, "payload": payload, "qos": 2}] * 10, "127.0.0.1", mosquitto.port)
    wait_for(lambda: bridge.books()["received"] >= count + 10 and not bridge.books()["outbox"], what="the rest")

    assert bridge.books()["received"] == count + 10
    assert "gdn_bridge_mqtt_repetitions_total 0.0" not in bridge.get("/metrics")[1], "the kills must show"
