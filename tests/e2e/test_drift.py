"""The worker is deactivated, deleted or changed while the bridge runs: no row is lost once the bridge knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MakeBridge = Callable[..., Bridge]

APPS = "/_fabric/_system/_api/streamapps"
APP = f"{APPS}/stream_worker_tutorial"


def publish(mosquitto: Mosquitto, first: int, count: int) -> None:
    publish_all(
        mosquitto.port,
        [(f"devices/D/rooms/{n}/telemetry", b'{"temperature": 20.5}') for n in range(first, first + count)],
    )


def rows(gdn: LocalGdn) -> set[int]:
    found = gdn.query("FOR d IN tutorialAppOutputTable RETURN d.id")
    return {int(id_.partition("-")[0]) for id_ in found}


def running(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, **settings: str) -> Bridge:
    """A bridge that has delivered the rows 0 to 9."""
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, **settings)
    bridge.start()
    bridge.wait_ready()
    publish(mosquitto, 0, 10)
    wait_for(lambda: rows(gdn) == set(range(10)), what="the first rows")
    return bridge


def wait_state(bridge: Bridge, state: str) -> str:
    """Wait until the part ``worker`` has the state; returns its error."""
    part = wait_for(lambda: (p := bridge.part("worker"))["state"] == state and p, what=f"the worker {state}")
    return str(part["error"])


def events(bridge: Bridge) -> list[str]:
    assert bridge.process is not None
    return [json.loads(line)["event"] for line in bridge.process.text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("times", [1, 3])
def test_a_deactivated_worker_is_activated_again_and_gets_all_rows_that_waited(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, times: int
) -> None:
    bridge = running(mosquitto, gdn, make_bridge)
    for turn in range(times):
        gdn.set_faults(worker_stopped=True)
        gdn.set_faults(worker_stopped=False)
        assert f"deactivated ({turn + 1} times since the start)" in wait_state(bridge, "waiting")
        publish(mosquitto, 10 + 20 * turn, 20)
        wait_for(lambda: bridge.part("worker")["state"] == "connected", seconds=60, what="the worker")

    wait_for(lambda: rows(gdn) == set(range(10 + 20 * times)), what="all rows")
    bridge.wait_ready()
    assert events(bridge).count("worker.switched_off") == times


def test_a_worker_that_does_not_stay_active_gets_nothing(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge)
    gdn.set_faults(worker_stopped=True)
    wait_state(bridge, "waiting")
    publish(mosquitto, 10, 20)
    wait_for(lambda: "worker.provision_failed" in events(bridge), what="an activation that does not last")

    assert bridge.books()["delivered"] == 10
    assert bridge.books()["outbox"] == 20
    gdn.set_faults(worker_stopped=False)
    wait_for(lambda: rows(gdn) == set(range(30)), seconds=60, what="all rows")


def test_with_on_drift_report_rows_wait_until_an_operator_recreates_a_deleted_worker(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge)
    gdn.call("DELETE", APP)
    wait_for(lambda: "was deleted while the bridge ran" in str(bridge.part("worker")["error"]), what="the report")
    publish(mosquitto, 10, 20)
    wait_for(lambda: bridge.books()["outbox"] == 20, what="rows that wait")
    assert not bridge.readiness()["ready"]
    assert gdn.call("GET", APPS)["streamApps"] == []

    assert bridge.cli("worker", "apply").returncode == 0
    wait_for(lambda: rows(gdn) == set(range(30)), seconds=60, what="all rows")


def test_with_on_drift_apply_a_deleted_worker_is_recreated(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge, BRIDGE_WORKER__ON_DRIFT="apply")
    gdn.call("DELETE", APP)
    wait_for(lambda: "was deleted" in str(bridge.part("worker")["error"]), what="the report")
    publish(mosquitto, 10, 20)

    wait_for(lambda: rows(gdn) == set(range(30)), seconds=60, what="all rows")


def test_rows_wait_while_the_schema_in_gdn_would_drop_them(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge)
    gdn.set_faults(schema_changed=True)
    gdn.set_faults(schema_changed=False)
    said = wait_state(bridge, "failing")
    assert "they lack the column addedElsewhere string" in said
    publish(mosquitto, 10, 20)
    wait_for(lambda: bridge.books()["outbox"] == 20, what="rows that wait")

    assert bridge.cli("worker", "apply").returncode == 0
    wait_for(lambda: rows(gdn) == set(range(30)), seconds=60, what="all rows")
    bridge.wait_ready()


def test_with_on_drift_apply_a_changed_schema_is_replaced(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = running(mosquitto, gdn, make_bridge, BRIDGE_WORKER__ON_DRIFT="apply")
    gdn.set_faults(schema_changed=True)
    gdn.set_faults(schema_changed=False)
    wait_for(lambda: "worker.replaced" in events(bridge), what="the replacement")
    publish(mosquitto, 10, 20)

    wait_for(lambda: rows(gdn) == set(range(30)), seconds=60, what="all rows")
    (app,) = gdn.call("GET", APP)["streamApps"]
    assert "addedElsewhere" not in app["definition"]


@pytest.mark.parametrize("change", ["deleted", "schema_changed"])
def test_with_on_drift_fail_drift_stops_the_bridge_and_the_reason_is_logged(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, change: str
) -> None:
    bridge = running(mosquitto, gdn, make_bridge, BRIDGE_WORKER__ON_DRIFT="fail")
    gdn.set_faults(**{change: True})

    assert bridge.process is not None
    assert bridge.process.wait(30) == 1
    (stopping,) = [json.loads(x) for x in bridge.process.text().splitlines() if "daemon.stopping" in x]
    assert "stream worker stream_worker_tutorial" in stopping["reason"]


def test_a_definition_that_differs_but_takes_the_same_rows_is_reported_and_used(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    text = Path(ROOT / "config" / "worker.sql").read_text()
    gdn.call("POST", APPS, {"definition": f"{text}-- a remark\n", "regions": []})

    bridge = running(mosquitto, gdn, make_bridge)

    assert "drift" in str(bridge.part("worker")["error"])
    assert bridge.readiness()["ready"]
