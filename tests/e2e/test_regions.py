"""A GDN of two regions: rows go to the one where the worker reads them, whichever answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]


@pytest.fixture
def gdn(tmp_path: Path) -> Iterator[LocalGdn]:
    """A local GDN whose second region, `elsewhere`, is at 127.0.0.2."""
    far_end = LocalGdn(tmp_path, options=["--host", "0.0.0.0"])
    yield far_end
    far_end.end()


def running(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, *regions: str) -> Bridge:
    """A bridge that has delivered ten rows."""
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_WORKER__REGIONS=json.dumps(regions))
    bridge.start()
    bridge.wait_ready()
    publish(mosquitto, gdn, 10)
    return bridge


def publish(mosquitto: Mosquitto, gdn: LocalGdn, count: int) -> None:
    """Publish that many messages and wait for their rows."""
    wanted = gdn.count() + count
    publish_all(mosquitto.port, [("devices/D/rooms/1/telemetry", b'{"temperature": 20.5}')] * count)
    wait_for(lambda: gdn.count() >= wanted, what=f"{wanted} rows")


def received(gdn: LocalGdn) -> dict[str, int]:
    """Rows by the region that got them."""
    found: dict[str, int] = gdn.call("GET", "/_local/stats")["received_in"]
    return found


def changes(bridge: Bridge) -> list[tuple[str, str]]:
    assert bridge.process is not None
    logged = [json.loads(line) for line in bridge.process.text().splitlines() if "gdn.region_changed" in line]
    return [(line["before"], line["now"]) for line in logged]


def test_rows_go_to_the_region_of_the_worker_not_to_the_one_that_answers(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge, "elsewhere")

    assert gdn.call("GET", "/datacenter/local")["name"] == "local"
    assert received(gdn) == {"elsewhere": 10}
    assert changes(bridge) == []


@pytest.mark.parametrize("regions", [["local", "elsewhere"], ["*"]])
def test_the_bridge_follows_another_answering_region_where_the_worker_runs_too_and_logs_it_once(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, regions: list[str]
) -> None:
    bridge = running(mosquitto, gdn, make_bridge, *regions)

    gdn.set_faults(region_changed=True)
    wait_for(lambda: changes(bridge), what="the logged change")
    publish(mosquitto, gdn, 20)

    assert received(gdn) == {"local": 10, "elsewhere": 20}
    assert changes(bridge) == [("local", "elsewhere")]
    bridge.wait_ready()


def test_a_worker_created_in_one_region_still_gets_its_rows_when_another_region_answers(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    gdn.set_faults(region_changed=True)
    bridge = running(mosquitto, gdn, make_bridge)
    assert received(gdn) == {"elsewhere": 10}

    gdn.set_faults(region_changed=False)
    reconnects = 'gdn_bridge_reconnects_total{link="producer tutorialAppInputStream"} '
    wait_for(lambda: f"{reconnects}0.0" not in bridge.get("/metrics")[1], what="a producer that dials again")
    publish(mosquitto, gdn, 20)

    assert gdn.call("GET", "/datacenter/local")["name"] == "local"
    assert received(gdn) == {"elsewhere": 30}
    assert changes(bridge) == []
