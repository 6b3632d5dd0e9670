"""``worker plan``, ``apply`` and ``validate`` against the local GDN, alone and concurrently."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.cli.configuration import gdn_rest, read_configuration
from bridge.cli.worker import apply_definition
from bridge.gdn.worker import Ensured, ensure_worker
from tests.conftest import Bridge, LocalGdn

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MakeBridge = Callable[..., Bridge]

NAME = "stream_worker_tutorial"
APP = f"/_fabric/_system/_api/streamapps/{NAME}"


@pytest.fixture
def bridge(gdn: LocalGdn, make_bridge: MakeBridge) -> Bridge:
    return make_bridge(mqtt_port=1, gdn_url=gdn.url, BRIDGE_WORKER__SETTLE_TIME="0")


def planned_by(bridge: Bridge) -> tuple[int, dict[str, Any]]:
    ended = bridge.cli("worker", "plan", "--json")
    return ended.returncode, json.loads(ended.stdout)


def apply(bridge: Bridge) -> list[str]:
    ended = bridge.cli("worker", "apply", "--json")
    assert ended.returncode == 0, ended.stderr
    steps: list[str] = json.loads(ended.stdout)["steps"]
    return steps


def state(gdn: LocalGdn) -> dict[str, Any]:
    (app,) = gdn.call("GET", APP)["streamApps"]
    assert isinstance(app, dict)
    return app


def test_a_missing_worker_is_planned_and_created_and_then_the_plan_is_empty(gdn: LocalGdn, bridge: Bridge) -> None:
    assert planned_by(bridge)[0] == 2
    assert planned_by(bridge)[1]["steps"] == ["create", "activate"]
    assert gdn.call("GET", "/_fabric/_system/_api/streamapps")["streamApps"] == []  # planning changes nothing
    assert apply(bridge) == ["create", "activate"]
    assert state(gdn)["isActive"]
    assert apply(bridge) == []
    ended = bridge.cli("worker", "plan")
    assert (ended.returncode, ended.stdout) == (0, f"worker {NAME}: up to date, nothing to do\n")


def test_a_deactivated_worker_is_only_activated(gdn: LocalGdn, bridge: Bridge) -> None:
    apply(bridge)
    gdn.call("PATCH", f"{APP}/active?active=false")

    code, found = planned_by(bridge)
    assert (code, found["active"], found["steps"]) == (2, False, ["activate"])
    assert apply(bridge) == ["activate"]


def test_a_changed_schema_is_shown_with_the_route_it_breaks_and_fixed_in_order(gdn: LocalGdn, bridge: Bridge) -> None:
    apply(bridge)
    gdn.set_faults(schema_changed=True)
    gdn.set_faults(schema_changed=False)

    shown = bridge.cli("worker", "plan")
    assert shown.returncode == 2
    assert "-CREATE STREAM tutorialAppInputStream (addedElsewhere string, deviceID string" in shown.stdout
    assert "column addedElsewhere string is only in GDN" in shown.stdout
    assert "route devices/{deviceID}/rooms/{roomNo}/telemetry is broken" in shown.stdout
    assert "to do: deactivate, replace, activate; then 0 s" in shown.stdout
    found = planned_by(bridge)[1]
    assert [route["stream"] for route in found["broken_routes"]] == ["tutorialAppInputStream"]
    assert apply(bridge) == ["deactivate", "replace", "activate"]
    assert (state(gdn)["isActive"], "addedElsewhere" in state(gdn)["definition"]) == (True, False)
    assert planned_by(bridge)[0] == 0


def test_other_regions_are_a_change(gdn: LocalGdn, bridge: Bridge) -> None:
    apply(bridge)
    bridge.settings["BRIDGE_WORKER__REGIONS"] = '["local", "elsewhere"]'

    code, found = planned_by(bridge)
    assert (code, found["regions"]) == (2, {"found": ["local"], "wanted": ["local", "elsewhere"], "differ": True})
    assert found["steps"] == ["deactivate", "replace", "activate"]


def test_an_unreachable_gdn_has_an_exit_code_of_its_own(gdn: LocalGdn, bridge: Bridge) -> None:
    gdn.set_faults(rest_errors=503)

    for action in ("plan", "apply", "validate"):
        ended = bridge.cli("worker", action)
        assert (ended.returncode, ended.stdout, "503" in ended.stderr) == (69, "", True)


def test_validate_has_gdn_parse_the_definition(gdn: LocalGdn, bridge: Bridge, tmp_path: Path) -> None:
    assert bridge.cli("worker", "validate").returncode == 0
    definition = tmp_path / "worker.sql"
    text = Path(bridge.settings["BRIDGE_WORKER__DEFINITION"]).read_text()
    definition.write_text(f"{text}CREATE WINDOW w (a int) SLIDING_TIME(1 min);\n")
    bridge.settings["BRIDGE_WORKER__DEFINITION"] = str(definition)

    ended = bridge.cli("worker", "validate", "--json")
    assert ended.returncode == 1
    answer = json.loads(ended.stdout)
    assert (answer["valid"], "422" in answer["error"]) == (False, True)
    assert gdn.call("GET", "/_fabric/_system/_api/streamapps")["streamApps"] == []


def test_a_definition_in_gdn_cant_control_the_terminal(gdn: LocalGdn, bridge: Bridge) -> None:
    text = Path(bridge.settings["BRIDGE_WORKER__DEFINITION"]).read_text()
    gdn.call("POST", "/_fabric/_system/_api/streamapps", {"definition": f"{text}-- \x1b[2J\n", "regions": []})

    shown = bridge.cli("worker", "plan")
    assert "-- \ufffd[2J" in shown.stdout
    assert "\x1b" not in shown.stdout


# --- concurrent -------------------------------------------------------------------------------------------


def at_once(bridge: Bridge, monkeypatch: pytest.MonkeyPatch, number: int, ask: Callable[[Any, Any], Any]) -> list[Any]:
    """The results of this many threads, each with its own REST client, like separate processes."""
    for name, value in bridge.settings.items():
        monkeypatch.setenv(name, value)
    configuration = read_configuration(argparse.Namespace(config=None, set=[]))
    rests = [gdn_rest(configuration) for _ in range(number)]
    try:
        with ThreadPoolExecutor(number) as threads, structlog.testing.capture_logs():
            return list(threads.map(lambda rest: ask(configuration, rest), rests))
    finally:
        for rest in rests:
            rest.close()


def test_fifty_concurrent_provisioners_create_one_worker_without_errors(
    gdn: LocalGdn, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(configuration: Any, rest: Any) -> Ensured:
        log: Any = structlog.get_logger()
        return ensure_worker(rest, worker=configuration.worker, regions=[], before_activation=lambda: None, log=log)

    ensured = at_once(bridge, monkeypatch, 50, ensure)

    assert [one.created for one in ensured].count(True) == 1
    assert len(gdn.call("GET", "/_fabric/_system/_api/streamapps")["streamApps"]) == 1
    assert state(gdn)["isActive"]


def test_concurrent_replacements_end_with_the_wanted_definition_active_without_errors(
    gdn: LocalGdn, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(bridge)
    gdn.set_faults(schema_changed=True)
    gdn.set_faults(schema_changed=False)
    pause = threading.Event()  # never set, so that wait() sleeps

    at_once(
        bridge,
        monkeypatch,
        8,
        lambda configuration, rest: apply_definition(configuration, rest, pause=lambda _: pause.wait(0.3)),
    )

    assert (state(gdn)["isActive"], "addedElsewhere" in state(gdn)["definition"]) == (True, False)


@pytest.mark.parametrize("done", [["create"], ["deactivate"], ["deactivate", "replace"]])
def test_a_run_killed_between_steps_is_completed_by_the_next(gdn: LocalGdn, bridge: Bridge, done: list[str]) -> None:
    text = Path(bridge.settings["BRIDGE_WORKER__DEFINITION"]).read_text()
    if done != ["create"]:
        apply(bridge)
        gdn.set_faults(schema_changed=True)
        gdn.set_faults(schema_changed=False)
    for step in done:
        if step == "create":
            gdn.call("POST", "/_fabric/_system/_api/streamapps", {"definition": text, "regions": []})
        elif step == "deactivate":
            gdn.call("PATCH", f"{APP}/active?active=false")
        else:
            gdn.call("PUT", APP, {"definition": text, "regions": []})

    apply(bridge)

    assert (state(gdn)["isActive"], state(gdn)["definition"]) == (True, text)
    assert planned_by(bridge)[0] == 0
