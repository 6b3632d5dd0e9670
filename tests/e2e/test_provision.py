"""Provisioning across a crash: rows must not go to a worker that was activated a moment ago."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_a_first_start_without_problems_logs_no_warning(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: Callable[..., Bridge]
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_WORKER__SETTLE_TIME="2")
    bridge.use_shipped_intervals()
    process = bridge.start()
    bridge.wait_ready()

    told = [json.loads(line) for line in process.text().splitlines()]
    assert "worker.settling" in {line["event"] for line in told}
    assert [line for line in told if line["level"] != "info"] == []


def test_after_a_crash_in_the_settle_time_the_next_start_waits_before_it_sends(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: Callable[..., Bridge]
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_WORKER__SETTLE_TIME="3")
    process = bridge.start()
    wait_for(lambda: "worker.settling" in process.text(), what="the activation")
    process.kill()

    process = bridge.start()
    bridge.wait_ready()
    assert process.terminate() == 0
    bridge.start()
    bridge.wait_ready()

    told = [json.loads(line)["event"] for line in process.text().splitlines()]
    order = [event for event in told if event in {"worker.activated", "worker.settling", "producer.connected"}]
    assert order == [
        *("worker.activated", "worker.settling"),
        *("worker.settling", "producer.connected"),
        "producer.connected",
    ]
