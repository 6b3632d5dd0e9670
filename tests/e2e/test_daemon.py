"""The daemon as a process, between a real Mosquitto and the local GDN."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import API_KEY, TABLE, Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

COUNT = 20_000
MEMORY_LIMIT = 100 * 1024 * 1024

MakeBridge = Callable[..., Bridge]


def readings(count: int = COUNT, first: int = 0) -> list[tuple[str, bytes]]:
    return [
        (f"devices/AD11/rooms/{n}/telemetry", b'{"temperature": %d.5}' % (n % 40)) for n in range(first, first + count)
    ]


def distinct_rows(gdn: LocalGdn) -> set[str]:
    return set(gdn.query(f"FOR d IN {TABLE} RETURN d.id"))


def expected_rows(count: int = COUNT) -> set[str]:
    return {f"{n}-AD11" for n in range(count)}


def wait_delivered(bridge: Bridge, gdn: LocalGdn, count: int) -> None:
    wait_for(lambda: gdn.count() >= count and bridge.books().get("outbox") == 0, seconds=90, what=f"{count} rows")


def test_20000_messages_at_full_speed_become_20000_distinct_rows(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings())
    wait_delivered(bridge, gdn, COUNT)

    assert distinct_rows(gdn) == expected_rows()
    assert gdn.count() == COUNT
    books = bridge.books()
    assert (books["received"], books["delivered"], books["dead_lettered"], books["dropped"]) == (COUNT, COUNT, 0, 0)
    assert bridge.part("outbox")["since"] == bridge.part("outbox")["since"]
    assert books["balanced"]
    assert bridge.peak_memory() < MEMORY_LIMIT
    assert process.terminate() == 0


def test_messages_sent_before_gdn_could_be_reached_become_rows_once_it_can(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    port = free_port()
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=f"http://127.0.0.1:{port}")
    bridge.start()
    bridge.wait_subscribed()

    publish_all(mosquitto.port, readings())
    wait_for(lambda: bridge.books().get("outbox") == COUNT, what="the outbox to hold everything")
    gdn = LocalGdn(tmp_path, port)
    try:
        wait_delivered(bridge, gdn, COUNT)

        assert distinct_rows(gdn) == expected_rows()
        assert bridge.books()["balanced"]
        assert bridge.peak_memory() < MEMORY_LIMIT
    finally:
        gdn.end()


def test_a_daemon_killed_in_the_middle_loses_nothing(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    process = bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings(COUNT // 2))
    wait_for(lambda: gdn.count() > 100, what="the first rows")
    process.kill()
    publish_all(mosquitto.port, readings(COUNT // 2, first=COUNT // 2))
    bridge.start()
    wait_for(lambda: len(distinct_rows(gdn)) == COUNT, seconds=90, what="all rows")

    assert distinct_rows(gdn) == expected_rows()
    wait_for(lambda: bridge.books().get("outbox") == 0, what="an empty outbox")
    assert bridge.books()["balanced"]
    assert bridge.peak_memory() < MEMORY_LIMIT


@pytest.mark.parametrize("authentication", ["otp", "header"])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_arrives_with_either_protocol_version_and_either_authentication(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, protocol: str, authentication: str
) -> None:
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=gdn.url,
        BRIDGE_MQTT__PROTOCOL=protocol,
        BRIDGE_GDN__AUTHENTICATION=authentication,
    )
    bridge.start()
    bridge.wait_ready()

    publish_all(mosquitto.port, readings(3))
    wait_delivered(bridge, gdn, 3)

    assert distinct_rows(gdn) == expected_rows(3)


def test_a_message_that_cant_be_mapped_becomes_a_dead_letter_and_no_other_is_affected(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.start()
    bridge.wait_ready()
    topic = "devices/AD11/rooms/{}/telemetry"
    poison = [
        (topic.format(1), b"\xff\xfe"),
        (topic.format(2), b'{"temperature": NaN}'),
        (topic.format(3), b"[" * 10_000),
        (topic.format(4), b'{"temperature": "' + b"x" * 5_000_000 + b'"}'),
        (topic.format(5), b""),
        (topic.format("kitchen"), b'{"temperature": 1}'),
        (topic.format(7), b'{"temperature": "abc"}'),
        (topic.format(8), b"{}"),
    ]
    good = readings(50)

    publish_all(
        mosquitto.port, [message for pair in zip(good, poison, strict=False) for message in pair] + good[len(poison) :]
    )
    wait_delivered(bridge, gdn, 50)

    assert distinct_rows(gdn) == expected_rows(50)
    books = bridge.books()
    assert (books["received"], books["dead_lettered"], books["delivered"]) == (58, 7, 50)
    assert books["dropped"] == 1, "the empty one: counted as filtered"
    _, metrics = bridge.get("/metrics")
    reasons = dict(
        line.removeprefix('gdn_bridge_dead_lettered_total{reason="').split('"} ')
        for line in metrics.splitlines()
        if line.startswith("gdn_bridge_dead_lettered_total{") and not line.endswith(" 0.0")
    )
    assert reasons == {
        "not_json": "3.0",
        "too_large": "1.0",
        "type_mismatch": "2.0",
        "missing_field": "1.0",
    }


def test_sigterm_stops_the_daemon_in_time_and_the_outbox_keeps_everything(
    mosquitto: Mosquitto, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=f"http://127.0.0.1:{free_port()}", BRIDGE_STOP_TIMEOUT="4")
    process = bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, readings(500))
    wait_for(lambda: bridge.books().get("outbox") == 500, what="500 records")

    begun = time.monotonic()
    code = process.terminate()

    assert code == 0
    assert time.monotonic() - begun < 5
    last = json.loads(process.text().splitlines()[-1])
    assert (last["event"], last["outbox"], last["balanced"]) == ("daemon.stopped", 500, True)


def test_the_bridge_reconnects_to_a_broker_that_restarts(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.start()
    bridge.wait_ready()
    directory = tmp_path / "again"
    directory.mkdir()

    mosquitto.kill()
    wait_for(lambda: bridge.part("mqtt")["state"] != "connected", what="the loss to be noticed")
    again = Mosquitto(directory, port=mosquitto.port)
    try:
        bridge.wait_ready()
        publish_all(mosquitto.port, readings(10))
        wait_delivered(bridge, gdn, 10)
    finally:
        again.end()

    assert distinct_rows(gdn) == expected_rows(10)


def test_after_an_outage_gdn_gets_everything(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.start()
    bridge.wait_ready()

    os.kill(gdn.pid, signal.SIGSTOP)
    try:
        publish_all(mosquitto.port, readings(2000))
        wait_for(lambda: bridge.books().get("received") == 2000, what="the messages to be stored")
    finally:
        os.kill(gdn.pid, signal.SIGCONT)
    wait_delivered(bridge, gdn, 2000)

    assert distinct_rows(gdn) == expected_rows(2000)


def test_no_secret_is_in_the_log(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_LOG__LEVEL="debug")
    process = bridge.start()
    bridge.wait_ready()
    process.terminate()

    assert API_KEY not in process.text()
    assert API_KEY.rpartition(".")[2] not in process.text()
    assert "otp=" not in process.text()
