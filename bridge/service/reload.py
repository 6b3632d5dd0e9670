"""What can change while the bridge runs, and what another set of settings would need a restart for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bridge.config import Settings
from bridge.config.tree import Location, dotted, every_setting
from bridge.mapping import Route
from bridge.streamql import Worker
from bridge.streamql.streams import InputStream

FOLLOWED = frozenset(
    {
        *("gdn.api_key", "gdn.email", "gdn.username", "gdn.password"),
        *("mqtt.username", "mqtt.password", "log.level", "log.format"),
    }
)
"""Settings that a running bridge follows, beside the routes."""


class Configuration(NamedTuple):
    """The settings and what they name, read and checked."""

    settings: Settings
    worker: Worker
    """The definition as it stands in its file."""
    streams: dict[str, InputStream]
    """The GDN streams that the worker reads, by name."""
    routes: Sequence[Route]
    """Checked against the definition."""
    place: Callable[[Location], str]
    """Names the place of a setting: file and line, or variable."""


def need_restart(running: Settings, found: Settings) -> list[str]:
    """The dotted names of the settings that differ and that a running bridge can't follow, in the reference's order."""
    locations = [location for location, _ in every_setting() if location[0] != "routes"]
    differing = [dotted(loc) for loc in locations if _value(running, loc) != _value(found, loc)]
    return [name for name in differing if name not in FOLLOWED]


def _value(settings: Settings, location: Location) -> Any:
    value: Any = settings
    for key in location:
        value = getattr(value, str(key))
    return value
