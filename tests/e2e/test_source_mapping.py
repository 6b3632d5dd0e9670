"""A worker whose source names a mapping, and rows that wait while the definition changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import ROOT, Bridge, LocalGdn, Mosquitto, wait_for
from tests.publisher import publish_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

DECLARED = "CREATE STREAM tutorialAppInputStream (deviceID string, roomNo int, temperature double);"


def definition(directory: Path, source: str) -> Path:
    """The shipped worker, with this source instead of its stream."""
    text = (ROOT / "config" / "worker.sql").read_text()
    assert DECLARED in text
    path = directory / "worker.sql"
    path.write_text(text.replace(DECLARED, source))
    return path


def mapped(properties: str) -> str:
    name = "tutorialAppInputStream"
    columns = "deviceID string, roomNo int, temperature double"
    return f"CREATE SOURCE {name} WITH (type='stream', stream.list='{name}', {properties}) ({columns});"


PATHS = mapped(
    "map.type='json', map.enclosing.element='$.event', map.attributes.deviceID='$.id', "
    "map.attributes.roomNo='$.place.room', map.attributes.temperature='$.data.t'"
)


def test_rows_that_waited_for_another_definition_reach_a_source_with_a_mapping(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    worker = definition(tmp_path, DECLARED.replace("temperature double", "temperature int"))
    settings = {"BRIDGE_WORKER__DEFINITION": str(worker)}
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=f"http://127.0.0.1:{free_port()}", **settings)
    process = bridge.start()
    bridge.wait_subscribed()
    publish_all(mosquitto.port, [(f"devices/D/rooms/{n}/telemetry", b'{"temperature": 18}') for n in range(3)])
    wait_for(lambda: bridge.books()["outbox"] == 3, what="the waiting rows")
    assert process.terminate() == 0

    definition(tmp_path, PATHS)
    bridge.settings["BRIDGE_GDN__URL"] = gdn.url
    bridge.start()
    bridge.wait_ready()
    publish_all(mosquitto.port, [("devices/D/rooms/3/telemetry", b'{"temperature": 18}')])

    wait_for(lambda: gdn.count() == 4, what="all rows")
    rows = gdn.query("FOR d IN tutorialAppOutputTable RETURN [d.id, d.temperature]")
    assert sorted(rows) == [[f"{n}-D", 18.0] for n in range(4)]
    wait_for(lambda: bridge.books()["delivered"] == 4, what="all receipts")


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_mapping_that_is_not_built_is_refused_by_its_property(
    make_bridge: Callable[..., Bridge], tmp_path: Path, verb: str
) -> None:
    worker = definition(tmp_path, mapped("map.type='xml'"))
    settings = {"BRIDGE_WORKER__DEFINITION": str(worker)}
    bridge = make_bridge(mqtt_port=free_port(), gdn_url=f"http://127.0.0.1:{free_port()}", **settings)

    run = bridge.cli(verb)

    assert run.returncode == 78
    assert "source tutorialAppInputStream has map.type = 'xml': the bridge sends json, csv and text" in run.stderr


def test_an_example_expects_columns_and_explain_shows_what_is_sent(
    make_bridge: Callable[..., Bridge], tmp_path: Path
) -> None:
    settings = {"BRIDGE_WORKER__DEFINITION": str(definition(tmp_path, PATHS))}
    bridge = make_bridge(mqtt_port=free_port(), gdn_url=f"http://127.0.0.1:{free_port()}", **settings)
    bridge.settings["BRIDGE_ROUTES"] = bridge.settings["BRIDGE_ROUTES"].replace(
        '"stream":',
        '"test": [{"topic": "devices/D/rooms/1/telemetry", "payload": {"temperature": 18}, '
        '"expect": {"deviceID": "D", "roomNo": 1, "temperature": 18}}], "stream":',
    )

    assert bridge.cli("test").stdout == "1 of 1 examples pass\n"
    explained = bridge.cli("explain", "devices/D/rooms/1/telemetry", '{"temperature": 18}').stdout
    assert '{"event":{"id":"D","place":{"room":1},"data":{"t":18.0}}}' in explained
