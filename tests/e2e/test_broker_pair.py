"""Two brokers, of which one takes over when the other stops: what both hold arrives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.e2e.test_daemon import readings
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]

StartBroker = Callable[[str], Mosquitto]


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts a broker that keeps its sessions on disk, or starts it again under the same name and port."""
    brokers: dict[str, Mosquitto] = {}

    def start(name: str) -> Mosquitto:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        known = brokers.get(name)
        brokers[name] = Mosquitto(
            directory,
            "allow_anonymous true",
            f"persistence_location {directory}/",
            "persistence true",
            "user root",  # if it is started as root; else it may not write here
            port=known.port if known else None,
        )
        return brokers[name]

    yield start
    for broker in brokers.values():
        broker.end()


def connected_to(bridge: Bridge) -> str | None:
    found: str | None = bridge.readiness().get("broker", {}).get("connected_to")
    return found


def test_a_second_broker_takes_over_and_what_the_first_still_held_comes_when_the_bridge_returns(
    start_broker: StartBroker, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    first, second = start_broker("first"), start_broker("second")
    places = [f"127.0.0.1:{broker.port}" for broker in (first, second)]
    bridge = make_bridge(mqtt_port=first.port, gdn_url=gdn.url, BRIDGE_DELIVERY__DEDUPLICATE="true")
    bridge.settings["BRIDGE_MQTT__URL"] = ",".join(f"mqtt://{place}" for place in places)
    process = bridge.start()
    bridge.wait_subscribed()
    assert connected_to(bridge) == places[0]
    publish_all(first.port, readings(10))
    wait_for(lambda: gdn.count() == 10, what="the first rows")

    first.terminate()
    wait_for(lambda: connected_to(bridge) == places[1], what="the second broker to take over")
    bridge.wait_subscribed()
    (switch,) = [json.loads(line) for line in process.text().splitlines() if '"mqtt.switched"' in line]
    assert (switch["from"], switch["to"]) == (f"gdn-bridge at {places[0]}", f"gdn-bridge at {places[1]}")
    assert "queued" in switch["hint"]
    publish_all(second.port, readings(20)[10:])
    wait_for(lambda: gdn.count() == 20, what="the rows of the second broker")

    first = start_broker("first")
    publish_all(first.port, readings(30)[20:])  # nobody is connected: its session queues them
    assert connected_to(bridge) == places[1], "the one that works is kept"
    assert f"broker   connected to {places[1]}\n" in bridge.cli("status").stdout
    second.terminate()
    wait_for(lambda: gdn.count() == 30, what="what the first broker had queued")

    assert connected_to(bridge) == places[0]
    books = bridge.books()
    assert books["balanced"]
    assert books["received"] == 30, "the fence, which the first broker sent again, was recognised"
    assert bridge.readiness()["broker"]["sessions_lost"] == 0


def test_check_online_tries_each_broker_and_one_that_is_down_is_a_note(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.settings["BRIDGE_MQTT__URL"] = f"mqtt://127.0.0.1:1,mqtt://127.0.0.1:{mosquitto.port}"

    ended = bridge.cli("check", "--online", "--json")

    found = {finding["asked"]: finding["outcome"] for finding in json.loads(ended.stdout)["online"]}
    assert found["broker 127.0.0.1:1"] == "note"
    assert found[f"broker 127.0.0.1:{mosquitto.port}"] == "ok"
    here = f"at 127.0.0.1:{mosquitto.port}"
    assert found[f"subscription devices/+/rooms/+/telemetry {here}"] == "ok"
    assert found["subscription devices/+/rooms/+/telemetry at 127.0.0.1:1"] == "skipped"
    assert ended.returncode == 0
