"""Sparkplug B through the daemon: births survive a restart, and a rebirth is requested where none is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bridge.mapping.sparkplug_payload import REBIRTH, message_class
from tests.conftest import Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WORKER = """@App:name('sparkplug') @App:qlVersion("2")
CREATE STREAM metrics (node string, metric string, value double);
CREATE TABLE GLOBAL kept (node string, metric string, value double);
INSERT INTO kept SELECT node, metric, value FROM metrics;
"""
ROUTE = {"topic": "spBv1.0/{group}/+/{node}", "stream": "metrics", "format": "sparkplug", "when": "metric != 'bdSeq'"}


def birth() -> bytes:
    payload = message_class()(timestamp=1, seq=0)
    payload.metrics.add(name="bdSeq", datatype=8, long_value=0)
    payload.metrics.add(name="level", alias=7, datatype=10, double_value=1.0)
    return bytes(payload.SerializeToString())


def data(seq: int, value: float) -> bytes:
    payload = message_class()(timestamp=1 + seq, seq=seq)
    payload.metrics.add(alias=7, double_value=value)
    return bytes(payload.SerializeToString())


def test_aliases_survive_a_restart_and_a_rebirth_is_requested_for_unknown_ones(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    definition = tmp_path / "worker.sql"
    definition.write_text(WORKER)
    bridge = make_bridge(
        mqtt_port=mosquitto.port,
        gdn_url=gdn.url,
        BRIDGE_WORKER__DEFINITION=str(definition),
        BRIDGE_ROUTES=json.dumps([ROUTE]),
    )
    bridge.start()
    bridge.wait_ready()
    publish_all(mosquitto.port, [("spBv1.0/plant/NBIRTH/known", birth())])
    wait_for(lambda: bridge.books().get("delivered") == 1, what="the birth")
    assert bridge.process is not None
    bridge.process.kill()
    bridge.start()
    bridge.wait_ready()

    commands: list[Any] = []
    node = paho.Client(CallbackAPIVersion.VERSION2, client_id="node")
    node.on_message = lambda _client, _data, message: commands.append(message)
    node.connect("127.0.0.1", mosquitto.port)
    node.subscribe("spBv1.0/plant/NCMD/stranger")
    node.loop_start()
    publish_all(
        mosquitto.port, [("spBv1.0/plant/NDATA/known", data(1, 2.5)), ("spBv1.0/plant/NDATA/stranger", data(1, 9))]
    )
    wait_for(lambda: commands, what="the request for a rebirth")
    publish_all(
        mosquitto.port, [("spBv1.0/plant/NBIRTH/stranger", birth()), ("spBv1.0/plant/NDATA/stranger", data(1, 9))]
    )
    wait_for(lambda: gdn.count("kept") == 4, what="the rows")
    node.loop_stop()
    node.disconnect()

    asked = message_class().FromString(commands[0].payload)
    assert [(metric.name, metric.boolean_value) for metric in asked.metrics] == [(REBIRTH, True)]
    rows = [(row["node"], row["metric"], row["value"]) for row in gdn.query("FOR row IN kept RETURN row")]
    assert sorted(rows) == [
        ("known", "level", 1),
        ("known", "level", 2.5),
        ("stranger", "level", 1),
        ("stranger", "level", 9),
    ]
    assert bridge.books()["dead_lettered"] == 1, "messages before the birth are dead letters with their reason"
    assert bridge.books()["dropped"] == 3, "bdSeq of two births, and the bridge's own request"
