"""A far end that sends receipts but loses or rejects rows: each case is noticed in time and reported in ``status`` and
/readyz."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CANARY, TABLE, Bridge, LocalGdn, Mosquitto, Process, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

INTERVAL = 5.0

MakeBridge = Callable[..., Bridge]


@pytest.fixture
def bridge(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> Bridge:
    """A healthy one whose canary has arrived."""
    checks = [
        {"name": "rows come", "query": f"RETURN LENGTH({TABLE})", "period": 1, "min": 0},
        {
            "name": "no frost",
            "query": f"FOR d IN {TABLE} FILTER d.temperature < -40 RETURN d.id",
            "period": 1,
            "rows": 0,
        },
    ]
    settings = {
        **CANARY,
        "BRIDGE_CANARY__INTERVAL": f"{INTERVAL:g}",
        "BRIDGE_HEALTH__CHECKS": json.dumps(checks),
        "BRIDGE_GDN__REQUEST_TIMEOUT": "5",
    }
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, **settings)
    bridge.start()
    bridge.wait_ready()
    return bridge


def lie(gdn: LocalGdn, **faults: Any) -> None:
    gdn.call("POST", "/_local/faults", {name.replace("_", "-"): value for name, value in faults.items()})


def wait_red(bridge: Bridge, part: str, sentence: str, *, seconds: float, state: str = "failing") -> str:
    """Wait until the part fails with the sentence, in /readyz and in ``status``. Returns the full error."""
    errors: list[str] = []

    def is_red() -> bool:
        found = bridge.part(part)
        if found["state"] != state or sentence not in found["error"]:
            return False
        errors.append(found["error"])
        return True

    wait_for(is_red, seconds=seconds, what=f"{part} with {sentence!r}; it is {bridge.part(part)}")
    assert bridge.get("/readyz")[0] == 503
    shown = bridge.cli("status")
    assert shown.returncode == 1
    assert sentence in shown.stdout
    return errors[0]


def test_a_canary_arrives_and_is_measured(bridge: Bridge, gdn: LocalGdn) -> None:
    status, metrics = bridge.get("/metrics")

    assert status == 200
    for hop in ("mqtt", "receipt", "row"):
        assert f'gdn_bridge_canary_seconds{{hop="{hop}"}}' in metrics
    assert 'gdn_bridge_canary_rounds_total{outcome="lost"} 0.0' in metrics
    assert 'gdn_bridge_route_rows_total{route="devices/{deviceID}/rooms/{roomNo}/telemetry"' in metrics
    shown = bridge.cli("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "is ready" in shown.stdout
    assert "0 rows behind, 0 lost" in shown.stdout


def test_rows_of_canaries_are_removed_and_no_others(bridge: Bridge, gdn: LocalGdn, mosquitto: Mosquitto) -> None:
    publish_all(mosquitto.port, [("devices/AD11/rooms/0/telemetry", b'{"temperature": 1}')] * 20)

    wait_for(lambda: bridge.readiness()["health"]["canary"]["rounds"]["found"] >= 3, what="three canaries")

    ids = gdn.query(f"FOR d IN {TABLE} RETURN d.id")
    assert ids.count("0-AD11") == 20
    assert sum("-canary-" in id_ for id_ in ids) <= 1  # the one under way
    health = bridge.readiness()["health"]
    assert (health["rows_behind"], health["rows_lost"]) == (0, 0)


def test_a_worker_that_drops_rows_is_noticed_within_two_canaries(bridge: Bridge, gdn: LocalGdn) -> None:
    lie(gdn, acks_but_drops=True)

    wait_red(bridge, "canary", "the worker accepts rows and drops them", seconds=2 * INTERVAL + 2)

    lie(gdn, acks_but_drops=False)
    wait_for(lambda: bridge.readiness()["ready"], seconds=2 * INTERVAL + 2, what="a canary that arrives")


def test_rows_that_do_not_come_out_are_counted_as_behind(bridge: Bridge, gdn: LocalGdn, mosquitto: Mosquitto) -> None:
    wait_for(lambda: bridge.readiness()["health"]["rows_behind"] == 0, what="a count")
    lie(gdn, acks_but_drops=True)
    publish_all(mosquitto.port, [(f"devices/AD11/rooms/{n}/telemetry", b'{"temperature": 1}') for n in range(1, 51)])

    wait_for(lambda: bridge.readiness()["health"]["rows_behind"] >= 50, seconds=10, what="50 rows behind")


def test_rows_lost_among_others_are_reported_and_counted_although_canaries_arrive(
    bridge: Bridge, gdn: LocalGdn, mosquitto: Mosquitto
) -> None:
    # The canary after a quiet moment gives the count that later ones are compared with.
    wait_for(lambda: bridge.readiness()["health"]["canary"]["rounds"]["found"] >= 2, what="two canaries")
    lie(gdn, unpublish_every=10)
    publish_all(mosquitto.port, [(f"devices/AD11/rooms/{n}/telemetry", b'{"temperature": 1}') for n in range(1, 51)])

    # The next canary clears the failure within seconds: use the error seen while the part failed.
    error = wait_red(bridge, "query", "of the rows that GDN had receipted by 20", seconds=2 * INTERVAL + 5)
    assert "are lost: a canary sent after them has come out, and they have not" in error
    lie(gdn, unpublish_every=False)
    lost = gdn.call("GET", "/_local/stats")["lost"]
    assert lost >= 5
    wait_for(lambda: bridge.readiness()["health"]["rows_lost"] == lost, what=f"all {lost} that the far end lost")
    assert f"gdn_bridge_rows_lost_total {lost}.0" in bridge.get("/metrics")[1]
    wait_for(lambda: bridge.readiness()["ready"], seconds=3 * INTERVAL + 5, what="a canary that shows no further loss")


MANY = """\
@App:name('many') @App:qlVersion('2')
CREATE STREAM first (n int);
CREATE STREAM second (n int);
CREATE STREAM filtered (n int);
CREATE TABLE firstTable (n int);
CREATE TABLE secondTable (n int);
CREATE TABLE filteredTable (n int);
INSERT INTO firstTable SELECT n FROM first;
INSERT INTO secondTable SELECT n FROM second;
INSERT INTO filteredTable SELECT n FROM filtered[n > 0];
"""

IMPATIENT = """
import sys
from bridge.cli import main
from bridge.watch import row_loss
row_loss.STALLED_AFTER = 3.0
sys.exit(main())
"""
"""The daemon, for which a worker has stalled after 3 seconds instead of 120."""


def test_a_stream_that_loses_every_row_is_named_while_the_others_deliver(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    definition = tmp_path / "many.sql"
    definition.write_text(MANY)
    routes = [{"topic": f"{name}/{{n}}", "stream": name} for name in ("first", "second", "filtered")]
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=gdn.url,
        BRIDGE_WORKER__DEFINITION=str(definition),
        BRIDGE_ROUTES=json.dumps(routes),
    )
    bridge.process = Process(
        [sys.executable, "-c", IMPATIENT, "run"], tmp_path / "impatient.log", env=bridge.environment()
    )
    bridge.wait_ready()
    wait_for(lambda: bridge.readiness()["health"]["rows_behind"] == 0, what="a count")
    lie(gdn, acks_but_drops="second")
    publish_all(mosquitto.port, [(f"{name}/{n}", b"{}") for name in ("first", "second") for n in range(20)])

    error = wait_red(bridge, "query", "stream second (table secondTable): 20 of the rows", seconds=30)
    assert "firstTable" not in error
    health = bridge.readiness()["health"]
    lacking = {table["table"]: table["rows_behind"] for table in health["tables"]}
    assert lacking == {"firstTable": 0, "secondTable": 20}
    assert gdn.count("firstTable") == 20
    assert health["unwatched_streams"] == ["filtered"]
    shown, checked = bridge.cli("status").stdout, bridge.cli("check").stdout
    assert "query    RETURN [LENGTH(`firstTable`), LENGTH(`secondTable`)]: answered" in shown
    for text in (shown, checked):
        assert "nothing shows whether the rows of filtered come out of the worker" in text


def test_the_next_check_reports_a_worker_with_other_columns(bridge: Bridge, gdn: LocalGdn) -> None:
    lie(gdn, schema_changed=True)

    wait_red(bridge, "worker", "they lack the column addedElsewhere string", seconds=5)
    assert "nothing is sent, because it would be lost" in bridge.part("worker")["error"]


def test_a_late_answer_of_gdn_is_reported_as_slow_and_one_after_the_timeout_as_no_answer(
    bridge: Bridge, gdn: LocalGdn
) -> None:
    lie(gdn, slow=2.5)

    sentence = "GDN is slow: it took"
    wait_for(lambda: sentence in (bridge.part("query")["error"] or ""), what="the report")
    shown = bridge.cli("status")
    assert (shown.returncode, sentence in shown.stdout) == (0, True)
    assert bridge.get("/readyz")[0] == 200
    (took,) = re.findall(r'gdn_bridge_check_seconds\{check="query"\} (\S+)', bridge.get("/metrics")[1])
    assert float(took) >= 2.5
    lie(gdn, slow=9)
    wait_red(bridge, "worker active", "no answer within 5 s", seconds=40)


def test_the_next_check_notices_a_deactivated_worker(bridge: Bridge, gdn: LocalGdn) -> None:
    lie(gdn, worker_stopped=True)

    wait_red(bridge, "worker active", "is not active: rows are not processed", seconds=5)


def test_the_next_check_notices_a_deleted_worker(bridge: Bridge, gdn: LocalGdn) -> None:
    lie(gdn, deleted=True)

    wait_red(bridge, "worker active", "GDN has no stream worker stream_worker_tutorial", seconds=5)


def test_error_answers_of_gdn_are_reported(bridge: Bridge, gdn: LocalGdn) -> None:
    lie(gdn, rest_errors=503)

    wait_red(bridge, "worker active", "503", seconds=5)
    wait_red(bridge, "check rows come", "503", seconds=5)


@pytest.mark.parametrize(
    ("right", "part", "sentence"),
    [
        ("queries", "query", "grant the API key access to the fabric _system, and to the collections"),
        ("workers", "worker active", "grant the API key the right to administer the fabric _system"),
    ],
)
def test_a_revoked_right_is_named(bridge: Bridge, gdn: LocalGdn, right: str, part: str, sentence: str) -> None:
    lie(gdn, no_right=right)

    wait_red(bridge, part, sentence, seconds=5)


def test_a_missing_right_to_publish_is_named(mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge) -> None:
    lie(gdn, no_right="streams")
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    bridge.start()

    wait_red(bridge, "producer tutorialAppInputStream", "403", seconds=30, state="waiting")


def test_the_result_of_a_configured_check_is_compared_with_its_expectation(
    bridge: Bridge, gdn: LocalGdn, mosquitto: Mosquitto
) -> None:
    publish_all(mosquitto.port, [("devices/AD11/rooms/7/telemetry", b'{"temperature": -60}')])

    wait_red(bridge, "check no frost", "expected 0 rows, got 1", seconds=5)


def test_status_reports_a_bridge_that_cant_be_reached(make_bridge: MakeBridge) -> None:
    shown = make_bridge(mqtt_port=1, gdn_url="http://127.0.0.1:1").cli("status")

    assert shown.returncode == 69
    assert "no status from" in shown.stderr
    assert "Is the bridge running" in shown.stderr
