"""The reference and the example say what the model says."""

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


def test_the_example_needs_nothing_but_the_key() -> None:
    settings = load(config_file=EXAMPLE, environ={"BRIDGE_GDN__API_KEY": "t.k.s"}, secret_directories=())

    (route,) = settings.routes
    assert (route.topic, route.stream) == ("devices/{deviceID}/rooms/{roomNo}/telemetry", "tutorialAppInputStream")
    assert f"STREAM {route.stream} " in settings.worker.definition.read_text()


def test_the_example_shows_every_setting_with_its_default() -> None:
    shown = _leaves(tomllib.loads(EXAMPLE.read_text()))
    commented = _leaves(tomllib.loads(re.sub(r"(?m)^# (?=\w+ = )", "", EXAMPLE.read_text().replace("# fields", "#"))))
    settings = dict(every_setting())

    assert set(commented) == set(settings)
    for location, field in settings.items():
        if field.is_required():
            assert location in shown or location == ("gdn", "api_key")
        elif location in shown:
            assert shown[location] == field.default
        else:
            assert field.default is None or location == ("outbox", "path")


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
