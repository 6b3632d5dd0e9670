"""``check --online``: asks broker and GDN, each even if the other fails, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.local.broker import free_port
from tests.conftest import API_KEY, Bridge, LocalGdn, Mosquitto
from tests.e2e.test_init import guarded

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]

FILTER = "devices/+/rooms/+/telemetry"
WORKER = "worker stream_worker_tutorial"
NOWHERE = "http://127.0.0.1:1"


def outcomes(bridge: Bridge, *, code: int) -> dict[str, tuple[str, str]]:
    """Each question with its outcome and answer."""
    ended = bridge.cli("check", "--online", "--json")
    assert (ended.returncode, ended.stderr) == (code, "")
    said = json.loads(ended.stdout)
    assert said["ok"] is (code == 0)
    return {finding["asked"]: (finding["outcome"], finding["said"]) for finding in said["online"]}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_working_setup_passes_and_nothing_is_changed(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path, protocol: str
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_MQTT__PROTOCOL=protocol)
    login = "login without user, with a temporary client id"

    found = outcomes(bridge, code=0)

    assert {asked: outcome for asked, (outcome, _) in found.items()} == {
        f"broker 127.0.0.1:{mosquitto.port}": "ok",
        login: "ok",
        f"subscription {FILTER}": "ok",
        f"GDN {gdn.url}": "ok",
        "API key": "ok",
        "tenant acme": "ok",
        "fabric _system": "ok",
        f"definition {bridge.settings['BRIDGE_WORKER__DEFINITION']}": "ok",
        WORKER: "note",
        "one-time password": "ok",
    }
    assert "doesn't exist" in found[WORKER][1]
    assert "doesn't exist" in bridge.cli("worker", "status").stdout
    assert not (tmp_path / "outbox.db").exists()


def test_the_text_output_names_each_question_and_its_answer(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    ended = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url).cli("check", "--online")

    assert ended.returncode == 0, ended.stderr
    assert "no problems found" in ended.stdout
    assert f"ok      subscription {FILTER}: granted at QoS 1" in ended.stdout


def test_the_workers_state_is_reported(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    definition = Path(bridge.settings["BRIDGE_WORKER__DEFINITION"]).read_text()
    gdn.call("POST", "/_fabric/_system/_api/streamapps", {"definition": definition, "regions": []})
    inactive = outcomes(bridge, code=0)[WORKER]
    gdn.call("PATCH", "/_fabric/_system/_api/streamapps/stream_worker_tutorial/active?active=true")
    active = outcomes(bridge, code=0)[WORKER]
    other = tmp_path / "other.sql"
    other.write_text(definition + "-- changed\n")
    bridge.settings["BRIDGE_WORKER__DEFINITION"] = str(other)
    lines = bridge.cli("check", "--online").stdout

    assert (inactive[0], "not active" in inactive[1]) == ("note", True)
    assert active == ("ok", "active in local")
    assert "another definition" in lines


def test_a_definition_that_gdn_cant_read_is_reported_before_it_is_created(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url)
    definition = tmp_path / "worker.sql"
    text = Path(bridge.settings["BRIDGE_WORKER__DEFINITION"]).read_text()
    definition.write_text(f"{text}CREATE WINDOW w (a int) SLIDING_TIME(1 min);\n")
    bridge.settings["BRIDGE_WORKER__DEFINITION"] = str(definition)

    outcome, said = outcomes(bridge, code=69)[f"definition {definition}"]

    assert (outcome, "422" in said) == ("failed", True)
    assert gdn.call("GET", "/_fabric/_system/_api/streamapps")["streamApps"] == []


def test_an_unreachable_broker_and_gdn_are_both_reported(make_bridge: MakeBridge) -> None:
    port = free_port()

    found = outcomes(make_bridge(mqtt_port=port, gdn_url=NOWHERE), code=69)

    failed = {asked for asked, (outcome, _) in found.items() if outcome == "failed"}
    assert failed == {f"broker 127.0.0.1:{port}", f"GDN {NOWHERE}"}
    assert all(outcome == "skipped" for asked, (outcome, _) in found.items() if asked not in failed)
    assert len(found) == 9


def test_a_refused_login_is_reported_and_gdn_is_checked_all_the_same(
    gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    broker = guarded(tmp_path)
    try:
        bridge = make_bridge(
            mqtt_port=broker.port,
            gdn_url=gdn.url,
            BRIDGE_MQTT__USERNAME="bridge",
            BRIDGE_MQTT__PASSWORD="wrong horse",
        )
        refused = outcomes(bridge, code=69)
        bridge.settings["BRIDGE_MQTT__PASSWORD"] = "correct horse"
        taken = outcomes(bridge, code=0)
    finally:
        broker.end()

    login = "login as bridge, with a temporary client id"
    assert refused[login][0] == "failed"
    assert "mqtt.password" in refused[login][1]
    assert "horse" not in str(refused)
    assert refused[f"subscription {FILTER}"][0] == "skipped"
    assert refused["one-time password"][0] == "ok"
    assert taken[login][0] == "ok"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_each_filter_is_reported_as_granted_or_refused(
    strict_broker: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, protocol: str
) -> None:
    topics = ["ok/{deviceID}/{roomNo}", "no/{deviceID}/{roomNo}"]
    bridge = make_bridge(
        mqtt_port=strict_broker.port,
        gdn_url=gdn.url,
        BRIDGE_MQTT__PROTOCOL=protocol,
        BRIDGE_ROUTES=json.dumps([{"topic": topic, "stream": "tutorialAppInputStream"} for topic in topics]),
    )

    found = outcomes(bridge, code=69)

    assert found["subscription ok/+/+"] == ("ok", "granted at QoS 1")
    assert found["subscription no/+/+"][0] == "failed"
    assert "access rules" in found["subscription no/+/+"][1]
    assert found["API key"][0] == "ok"


def test_a_shared_subscription_is_tested_with_another_group(
    gdn: LocalGdn, make_bridge: MakeBridge, tmp_path: Path
) -> None:
    """In the bridges' own group the check would be handed messages meant for them."""
    directory = tmp_path / "talkative"
    directory.mkdir()
    broker = Mosquitto(directory, "allow_anonymous true", "log_type all")
    routes = [{"topic": "$share/bridges/a/{deviceID}/{roomNo}", "stream": "tutorialAppInputStream"}]
    try:
        bridge = make_bridge(mqtt_port=broker.port, gdn_url=gdn.url, BRIDGE_ROUTES=json.dumps(routes))
        found = outcomes(bridge, code=0)
    finally:
        broker.end()

    assert found["subscription $share/bridges/a/+/+"][0] == "ok"
    assert "a/+/+ (QoS 1)" in broker.text()
    assert "bridges" not in broker.text()


def test_a_shared_subscription_over_3_1_1_is_noted_though_granted(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    routes = [{"topic": "$share/g/a/{deviceID}/{roomNo}", "stream": "tutorialAppInputStream"}]
    settings = {"BRIDGE_MQTT__PROTOCOL": "3.1.1", "BRIDGE_ROUTES": json.dumps(routes)}

    found = outcomes(make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, **settings), code=0)

    outcome, said = found[f"broker 127.0.0.1:{mosquitto.port}, what it grants"]
    assert (outcome, "take $share/... as an ordinary topic" in said) == ("note", True)
    assert found["subscription $share/g/a/+/+"][0] == "ok"


@pytest.mark.parametrize(
    ("variable", "value", "asked", "says"),
    [
        ("BRIDGE_GDN__API_KEY", "acme.other.key", "API key", "check the API key"),
        ("BRIDGE_GDN__TENANT", "nobody", "tenant nobody", "belongs to 'acme'"),
        ("BRIDGE_GDN__FABRIC", "nowhere", "fabric nowhere", "Check gdn.fabric"),
    ],
)
def test_a_wrong_key_tenant_or_fabric_is_reported(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge, variable: str, value: str, asked: str, says: str
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, **{variable: value})

    found = outcomes(bridge, code=69)

    assert {a for a, (outcome, _) in found.items() if outcome == "failed"} == {asked}
    assert says in found[asked][1]
    assert API_KEY not in str(found)
    assert value not in found[asked][1] or variable != "BRIDGE_GDN__API_KEY"


def test_with_a_plain_pulsar_only_its_web_service_is_checked(
    mosquitto: Mosquitto, gdn: LocalGdn, make_bridge: MakeBridge
) -> None:
    bridge = make_bridge(mqtt_port=mosquitto.port, gdn_url=gdn.url, BRIDGE_GDN__KIND="pulsar")
    there = outcomes(bridge, code=0)
    bridge.settings["BRIDGE_DELIVERY__DEDUPLICATE"] = "true"
    deduplicated = outcomes(bridge, code=0)
    del bridge.settings["BRIDGE_DELIVERY__DEDUPLICATE"]
    bridge.settings["BRIDGE_GDN__URL"] = NOWHERE
    absent = outcomes(bridge, code=69)

    assert there[f"Pulsar {gdn.url}"][0] == "ok"
    assert absent[f"Pulsar {NOWHERE}"][0] == "failed"
    assert len(there) == len(absent) == 4
    outcome, said = deduplicated["partitions of tutorialAppInputStream"]
    assert outcome == "note"
    assert "the WebSocket service runs without Pulsar's REST API" in said


def test_offline_check_shows_format_compression_and_filter_of_a_route(make_bridge: MakeBridge) -> None:
    route = {
        "topic": "a/{deviceID}/{roomNo}",
        "stream": "tutorialAppInputStream",
        "format": "cbor",
        "when": "temperature > `3`",
        "match": "all",
        "compression": "gzip",
    }
    bridge = make_bridge(mqtt_port=1, gdn_url=NOWHERE, BRIDGE_ROUTES=json.dumps([route]))

    ended = bridge.cli("check")
    as_json = json.loads(bridge.cli("check", "--json").stdout)

    assert ended.returncode == 0, ended.stderr
    assert "cbor; compression gzip; when temperature > `3`; match all" in ended.stdout
    assert (as_json["routes"][0]["format"], "online" in as_json) == ("cbor", False)
