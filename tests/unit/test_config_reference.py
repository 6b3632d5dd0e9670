"""docs/settings.md and config/bridge.toml match the settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from bridge.config import load
from bridge.config.reference import REGENERATE, reference
from bridge.config.tree import every_setting, variable

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "bridge.toml"


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()

    assert written == reference(), f"docs/settings.md is behind the model; run: {REGENERATE}"


def test_the_reference_has_every_setting_with_a_description() -> None:
    text = reference()

    assert [v for location, _ in every_setting() if f"| `{(v := variable(location))}` |" not in text] == []
    assert [variable(location) for location, field in every_setting() if not field.description] == []


def test_the_example_needs_only_the_api_key() -> None:
    settings = load(config_file=EXAMPLE, environ={"BRIDGE_GDN__API_KEY": "t.k.s"}, secret_directories=())

    (route,) = settings.routes
    assert (route.topic, route.stream) == ("devices/{deviceID}/rooms/{roomNo}/telemetry", "tutorialAppInputStream")
    assert f"STREAM {route.stream} " in settings.worker.definition.read_text()


def test_snippets_of_the_guides_can_be_appended_to_the_example(tmp_path: Path) -> None:
    (tmp_path / "worker.sql").write_text((EXAMPLE.parent / "worker.sql").read_text())
    file = tmp_path / EXAMPLE.name
    check = '[[health.checks]]\nname = "n"\nquery = "RETURN 1"\n'
    route = '[routes.fields]\na = "b"\n[[routes.test]]\ntopic = "t"\npayload = ""\nexpect = []\n'
    file.write_text(EXAMPLE.read_text() + check + route)

    settings = load(config_file=file, environ={"BRIDGE_GDN__API_KEY": "t.k.s"}, secret_directories=())

    assert [check.name for check in settings.health.checks] == ["n"]
    assert (settings.routes[0].fields, len(settings.routes[0].test)) == ({"a": "b"}, 1)


def test_the_example_shows_every_setting_with_its_default() -> None:
    shown = _leaves(tomllib.loads(EXAMPLE.read_text()))
    commented = _leaves(tomllib.loads(re.sub(r"(?m)^# (?=\w+ = )", "", EXAMPLE.read_text())))
    settings = dict(every_setting())

    assert set(commented) == set(settings)
    for location, field in settings.items():
        if field.is_required():
            assert location in shown or location == ("gdn", "api_key")
        elif location in shown:
            assert shown[location] == field.default
        else:
            assert field.default in (None, [], {}) or location == ("outbox", "path")


def _leaves(tree: dict[str, Any]) -> dict[tuple[str | int, ...], Any]:
    found: dict[tuple[str | int, ...], Any] = {}
    for group, value in tree.items():
        if group == "routes":
            found |= {(group, 0, key): inner for key, inner in value[0].items()}
        elif isinstance(value, dict):
            found |= {(group, key): inner for key, inner in value.items()}
        else:
            found[group,] = value
    return found
